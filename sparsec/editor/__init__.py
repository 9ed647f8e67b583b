"""What an editor asks about a `.sparse` text: pure functions on text and offsets, without any protocol.

`sparsec.lsp` speaks the Language Server Protocol over them. Invariant: any text gets an answer, also one that is half
typed, and the work of an answer is bounded.
"""

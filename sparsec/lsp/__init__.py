"""The Language Server Protocol over `sparsec.editor`: `sparsec lsp`. It needs the extra `lsp` (pygls)."""

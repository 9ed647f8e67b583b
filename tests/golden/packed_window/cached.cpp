no cache: its documents are packed into one sequence

... 1 lines, sha256 23cc01cc7f7b0db3
no cache: its documents are packed into one sequence

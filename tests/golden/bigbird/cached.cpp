no cache: `line 5: global(1b)` lets a query attend to a later key

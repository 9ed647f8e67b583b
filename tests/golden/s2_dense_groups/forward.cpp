...

  static const int c0_of_head[HEADS] = {0, 0, 15, 15, 14, 14, 13, 13, 12, 12, 11, 11, 10, 10, 0, 0};
...

... -1
// line 30: full & line 29: causal
void visit_class_1(Work& w, [[maybe_unused]] const sparsec_list* lists, [[maybe_unused]] int head) {
...

void visit(Work& w, const sparsec_list* lists, int head) {
  static const int class_of_head[HEADS] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1};
  switch (class_of_head[head]) {
    case 0: visit_class_0(w, lists, head); break;
    case 1: visit_class_1(w, lists, head); break;
  }
}

...

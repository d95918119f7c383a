// Iterative destruction of histories, and the recording flag.
#include <stet/tensor/history.h>

#include <vector>

namespace stet {
namespace {

thread_local bool recording = true;
thread_local std::vector<History*>* pending = nullptr;

}  // namespace

void dispose(History* history) {
  if (pending) {  // a destructor further up the stack is already working the list
    pending->push_back(history);
    return;
  }
  std::vector<History*> list{history};
  pending = &list;
  while (!list.empty()) {
    History* next = list.back();
    list.pop_back();
    delete next;
  }
  pending = nullptr;
}

bool grad_enabled() { return recording; }

GradMode::GradMode(bool enabled) : before_(recording) { recording = enabled; }
GradMode::~GradMode() { recording = before_; }

}  // namespace stet

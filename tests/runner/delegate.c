/* A TFLite external delegate whose option `mode` says what it does wrong: by default it
   takes the whole model and computes nothing.

   The structures are those of tensorflow/lite/core/c/common.h, which no wheel contains;
   fields that are not needed are pointers without a type. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct { int size; int data[]; } Ints;
typedef struct Context Context;
typedef struct Delegate Delegate;
typedef struct {
  void *init, *free;
  int (*prepare)(Context*, void*);
  int (*invoke)(Context*, void*);
  void* profiling_string;
  int32_t builtin_code;
  const char* custom_name;
  int version;
  void *external, *async_kernel;
  uint64_t inplace_operator;
} Registration;
struct Context {
  size_t tensors_size;
  int (*plan)(Context*, Ints**);
  void *tensors, *impl, *resize;
  void (*report)(Context*, const char*, ...);
  void *add_tensors, *get_node;
  int (*replace)(Context*, Registration, const Ints*, Delegate*);
};
struct Delegate {
  void* data;
  int (*prepare)(Context*, Delegate*);
  void *copy_from, *copy_to, *free_handle;
  int64_t flags;
  void* opaque_builder;
  char mode[32];
};

static int succeed(Context* context, void* node) { return 0; }
static int fail(Context* context, void* node) {
  context->report(context, "the chip is\ntoo hot");
  return 1;
}
static int crash(Context* context, void* node) { abort(); }

static int prepare(Context* context, Delegate* delegate) {
  Ints* plan;
  if (!strcmp(delegate->mode, "idle")) return 0;
  if (context->plan(context, &plan)) return 1;
  Registration kernel = {0};
  kernel.prepare = succeed;
  kernel.invoke = !strcmp(delegate->mode, "fail") ? fail
                  : !strcmp(delegate->mode, "crash") ? crash : succeed;
  kernel.builtin_code = 51; /* BuiltinOperator_DELEGATE */
  kernel.custom_name = "TestDelegate";
  kernel.version = 1;
  size_t size = sizeof(int) * (plan->size + 1);
  Ints* nodes = memcpy(malloc(size), plan, size);
  int status = context->replace(context, kernel, nodes, delegate);
  free(nodes);
  return status;
}

Delegate* tflite_plugin_create_delegate(char** keys, char** values, size_t count,
                                        void (*report)(const char*)) {
  Delegate* delegate = calloc(1, sizeof *delegate);
  delegate->prepare = prepare;
  delegate->flags = 1; /* or the runtime prepares the operators before */
  for (size_t i = 0; i < count; i++) {
    if (!strcmp(keys[i], "mode") || !strcmp(keys[i], "device"))
      strncpy(delegate->mode, values[i], 31);
  }
  if (!strcmp(delegate->mode, "refuse")) {
    report("no chip\nof ours is here");
    free(delegate);
    return 0;
  }
  if (!strcmp(delegate->mode, "segfault")) *(volatile int*)0 = 1;
  return delegate;
}
void tflite_plugin_destroy_delegate(Delegate* delegate) { free(delegate); }
const char* edgetpu_version(void) { return "BuildLabel(TEST), RuntimeVersion(14)"; }

"""External delegates for tests, compiled from 90 lines of C: one that works, and one for each way they fail.

The structs are the part of TensorFlow Lite's C interface (`tensorflow/lite/core/c/common.h`) that an external delegate
touches; its order of fields has been stable since 2.12, and both runtimes read it alike.
"""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING, Literal

import pytest

if TYPE_CHECKING:
    from pathlib import Path

#: `works` takes one node and runs it with its own kernel; `zeros` takes all and computes nothing.
Kind = Literal["works", "idle", "zeros", "refuses", "crashes", "crashes_later", "hangs", "exits", "stranger"]

_SOURCE = r"""
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct { int size; int data[]; } IntArray;
typedef struct { float scale; int32_t zero_point; } Params;
typedef struct { int type; void* details; } Quantization;
typedef struct {
  int type; void* data; IntArray* dims; Params params; int allocation_type; size_t bytes; const void* allocation;
  const char* name; void* delegate; int buffer_handle; bool data_is_stale; bool is_variable;
  Quantization quantization; void* sparsity; const IntArray* dims_signature;
} Tensor;
typedef struct Context Context;
typedef struct {
  IntArray *inputs, *outputs, *intermediates, *temporaries; void *user_data, *builtin_data;
  const void* custom_initial_data; int custom_initial_data_size; void* delegate; bool might_have_side_effect;
} Node;
typedef struct {
  void* (*init)(Context*, const char*, size_t);
  void (*free)(Context*, void*);
  int (*prepare)(Context*, Node*);
  int (*invoke)(Context*, Node*);
  const char* (*profiling_string)(const Context*, const Node*);
  int32_t builtin_code; const char* custom_name; int version;
  void* registration_external; void* async_kernel; uint64_t inplace_operator;
} Registration;
typedef struct Delegate {
  void* data; int (*prepare)(Context*, struct Delegate*);
  void *copy_from_buffer_handle, *copy_to_buffer_handle, *free_buffer_handle;
  int64_t flags; void* opaque_delegate_builder;
} Delegate;
typedef struct { Delegate* delegate; IntArray *nodes_to_replace, *input_tensors, *output_tensors; } DelegateParams;
struct Context {
  size_t tensors_size; int (*get_execution_plan)(Context*, IntArray**); Tensor* tensors; void* impl;
  void* resize_tensor; void* report_error; void* add_tensors;
  int (*get_node_and_registration)(Context*, int, Node**, Registration**);
  int (*replace_node_subsets)(Context*, Registration, const IntArray*, Delegate*);
};

typedef struct { Node node; Registration own; } Taken;

static void* kernel_init(Context* context, const char* buffer, size_t length) {
  // The graph may be read here and nowhere later; what it holds moves when another delegate adds nodes: copy.
  Node* node; Registration* own;
  const IntArray* nodes = ((const DelegateParams*)buffer)->nodes_to_replace;
  if (context->get_node_and_registration(context, nodes->data[0], &node, &own)) return NULL;
  Taken* taken = malloc(sizeof *taken);
  *taken = (Taken){*node, *own};
  return taken;
}
static void kernel_free(Context* context, void* taken) { free(taken); }
static int kernel_prepare(Context* context, Node* kernel) {
  Taken* taken = kernel->user_data;
  return ZEROS ? 0 : taken->own.prepare(context, &taken->node);
}
static int kernel_invoke(Context* context, Node* kernel) {
  if (CRASHES_LATER) raise(SIGSEGV);
  Taken* taken = kernel->user_data;
  if (!ZEROS) return taken->own.invoke(context, &taken->node);
  for (int i = 0; i < kernel->outputs->size; i++) {
    Tensor* tensor = &context->tensors[kernel->outputs->data[i]];
    memset(tensor->data, 0, tensor->bytes);
  }
  return 0;
}
static int delegate_prepare(Context* context, Delegate* delegate) {
  IntArray* plan;
  if (IDLE) return 0;
  if (context->get_execution_plan(context, &plan)) return 1;
  size_t size = sizeof(IntArray) + sizeof(int) * plan->size;
  IntArray* nodes = memcpy(malloc(size), plan, size);
  // One node's tensors are allocated by the runtime; those between two taken nodes would be our business.
  if (!ZEROS) nodes->size = 1;
  Registration kernel = {kernel_init, kernel_free, kernel_prepare, kernel_invoke, 0, 0, "TestDelegate", 1, 0, 0, 0};
  int status = context->replace_node_subsets(context, kernel, nodes, delegate);
  free(nodes);
  return status;
}
#if !STRANGER
Delegate* tflite_plugin_create_delegate(char** keys, char** values, size_t count, void (*complain)(const char*)) {
  puts("a delegate that talks on stdout");
  fflush(stdout);
  if (CRASHES) raise(SIGSEGV);
  if (EXITS) _exit(3);
  if (HANGS) for (;;) sleep(1000);
  for (size_t i = 0; i < count; i++)
    if (REFUSES || strcmp(keys[i], "device")) { complain("unknown option"); return NULL; }
  Delegate* delegate = calloc(1, sizeof *delegate);
  delegate->prepare = delegate_prepare;
  return REFUSES ? (complain("no accelerator found"), free(delegate), NULL) : delegate;
}
void tflite_plugin_destroy_delegate(Delegate* delegate) { free(delegate); }
#endif
"""
_FLAGS = ("ZEROS", "IDLE", "REFUSES", "CRASHES", "CRASHES_LATER", "HANGS", "EXITS", "STRANGER")


def build(folder: Path, kind: Kind) -> Path:
    """Compile one delegate and return its library; skip the calling test where there is no C compiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler on this machine to build a delegate with")
    source = folder / "delegate.c"
    source.write_text(_SOURCE)
    library = folder / f"lib{kind}.so"
    flags = [f"-D{flag}={int(flag == kind.upper())}" for flag in _FLAGS]
    subprocess.run([compiler, "-shared", "-fPIC", "-w", *flags, "-o", str(library), str(source)], check=True)
    return library

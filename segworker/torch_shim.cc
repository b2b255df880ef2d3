// TorchScript behind the C interface of torch_shim.h. Compiles against libtorch 1.13 and 2.x.
//
// Why re-optimisation is off: the profiling executor recompiles the graph for each new input shape, and images come in
// all shapes. With profiling mode off a new shape costs nothing extra; results do not depend on what ran before.
#include "segworker/torch_shim.h"

#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include <ATen/Parallel.h>
#include <torch/csrc/jit/runtime/graph_executor.h>
#include <torch/script.h>
#include <torch/version.h>
// Streams through the library's device-neutral interface, which every build has, with or without CUDA.
#include <c10/core/impl/VirtualGuardImpl.h>
#include <c10/core/StreamGuard.h>
// torch/cuda.h is part of the C++ API and names cuda_is_available in every build, with or without CUDA.
#include <torch/cuda.h>

#include <thread>

struct torch_model {
    torch::jit::Module module;
    // The same with the library's kernels for inference (oneDNN), until the first run has shown that it computes the
    // same.
    std::unique_ptr<torch::jit::Module> fast;
    torch::Device device{torch::kCPU};
    std::string name;
    // On an accelerator: its own stream, and memory of the host that the device reads and writes by itself.
    std::unique_ptr<c10::Stream> stream;
    torch::Tensor host_in, host_out;
};

namespace {

// An exception as an err_t. The runtime's text can be pages long and ends with the cause: that line goes to the log.
err_kind_t report(err_t *err, const char *what, err_kind_t kind, const char *code, const char *message) {
    std::string cause(what ? what : "");
    cause.erase(cause.find_last_not_of(" \n") + 1);
    cause.erase(0, cause.find_last_of('\n') + 1);
    if (std::strstr(what ? what : "", "out of memory") || std::strstr(what ? what : "", "can't allocate memory")) {
        return err_set(err, ERR_NO_MEMORY, "out_of_memory",
                       "There is not enough memory to run the model on this image now. Try again later.", "%s",
                       cause.c_str());
    }
    return err_set(err, kind, code, message, "%s", cause.c_str());
}

err_kind_t no_memory(err_t *err) {
    return err_set(err, ERR_NO_MEMORY, "out_of_memory", "There is not enough memory to run the model now.", nullptr);
}

err_kind_t unknown_device(const char *device, err_t *err) {
    return err_setf(err, ERR_INVALID, "device_unknown", "\"%.40s\" is no device; use auto, cpu, cuda or cuda:N.",
                    device);
}

// "cuda" or "cuda:N" -> index, or -1 when the word is neither.
int cuda_index(const std::string &word) {
    if (word == "cuda") {
        return 0;
    }
    if (word.compare(0, 5, "cuda:") != 0 || word.size() < 6 || word.size() > 8 ||
        word.find_first_not_of("0123456789", 5) != std::string::npos) {
        return -1;
    }
    return std::stoi(word.substr(5));
}

err_kind_t resolve(const char *device, torch::Device *out, err_t *err) {
    std::string word(device ? device : "auto");
    if (word == "auto" || word.empty()) {
        *out = torch::cuda::is_available() ? torch::Device(torch::kCUDA, 0) : torch::Device(torch::kCPU);
        return ERR_OK;
    }
    if (word == "cpu") {
        *out = torch::Device(torch::kCPU);
        return ERR_OK;
    }
    int index = cuda_index(word);
    if (index < 0) {
        return unknown_device(word.c_str(), err);
    }
    if (!torch::cuda::is_available() || index >= static_cast<int>(torch::cuda::device_count())) {
        return err_setf(err, ERR_UNAVAILABLE, "device_missing", "The device %.16s is not there; use auto or cpu.",
                        word.c_str());
    }
    *out = torch::Device(torch::kCUDA, static_cast<c10::DeviceIndex>(index));
    return ERR_OK;
}

std::string device_name(const torch::Device &d) {
    return d.is_cuda() ? "cuda:" + std::to_string(d.has_index() ? d.index() : 0) : std::string("cpu");
}

void configure_once() {
    static const bool done = [] {
        torch::jit::getProfilingMode() = false;
        torch::jit::setGraphExecutorOptimize(true);
        return true;
    }();
    (void)done;
}

// A tensor, or several one after the other in their channels; [n, h, w] counts as one channel.
torch::Tensor as_maps(const torch::IValue &value) {
    if (value.isTensor()) {
        torch::Tensor y = value.toTensor();
        return y.dim() == 3 ? y.unsqueeze(1) : y;
    }
    std::vector<torch::Tensor> parts;
    if (value.isTensorList()) {
        for (const torch::Tensor &t : value.toTensorVector()) {
            parts.push_back(as_maps(t).to(torch::kFloat32));
        }
    } else if (value.isTuple()) {
        for (const torch::IValue &v : value.toTuple()->elements()) {
            parts.push_back(as_maps(v).to(torch::kFloat32));
        }
    } else {
        throw std::runtime_error("the output is no tensor");
    }
    return torch::cat(parts, 1);
}

// Is y of the shape n, channels, height, width?
err_kind_t check_shape(const torch::Tensor &y, const int64_t *shape, err_t *err) {
    bool fits = y.dim() == 4;
    std::string found;
    for (int64_t d = 0; d < y.dim(); d++) {
        fits = fits && y.size(d) == shape[d];
        found += (d > 0 ? " x " : "") + std::to_string(y.size(d));
    }
    if (!fits) {
        return err_set(err, ERR_INVALID, "model_output",
                       "The model gives maps of another shape than its model.json says.",
                       "%.100s, expected %ld x %ld x %ld x %ld", found.c_str(), static_cast<long>(shape[0]),
                       static_cast<long>(shape[1]), static_cast<long>(shape[2]), static_cast<long>(shape[3]));
    }
    return ERR_OK;
}

err_kind_t copy_output(const torch::IValue &value, const int64_t *shape, float *output, err_t *err) {
    torch::Tensor y = as_maps(value);
    err_kind_t k = check_shape(y, shape, err);
    if (k == ERR_OK) {
        y = y.to(torch::kCPU, torch::kFloat32).contiguous();
        std::memcpy(output, y.data_ptr<float>(), static_cast<size_t>(y.numel()) * sizeof(float));
    }
    return k;
}

// A pinned tensor of the host; the one from before if it has the shape.
const torch::Tensor &pinned(torch::Tensor &kept, torch::IntArrayRef shape) {
    if (!kept.defined() || kept.sizes() != shape) {
        kept = torch::empty(shape, torch::TensorOptions().dtype(torch::kFloat32).pinned_memory(true));
    }
    return kept;
}

// Copies to the device, the run and the copy back are queued on the model's stream one after the other; the host waits
// once, at the end.
err_kind_t run_on_accelerator(torch_model *m, const float *input, torch::IntArrayRef in_shape, float *output,
                              const int64_t *out_shape, err_t *err) {
    c10::impl::VirtualGuardImpl device(m->device.type());
    if (!m->stream) {
        m->stream = std::make_unique<c10::Stream>(device.getStreamFromGlobalPool(m->device));
    }
    c10::StreamGuard guard(*m->stream);
    const torch::Tensor &x = pinned(m->host_in, in_shape);
    std::memcpy(x.data_ptr<float>(), input, static_cast<size_t>(x.numel()) * sizeof(float));
    torch::Tensor y = as_maps(m->module.forward({x.to(m->device, /*non_blocking=*/true)}));
    err_kind_t k = check_shape(y, out_shape, err);
    if (k != ERR_OK) {
        return k;
    }
    torch::Tensor z = pinned(m->host_out, y.sizes());
    z.copy_(y, /*non_blocking=*/true);
    device.synchronizeStream(*m->stream);
    std::memcpy(output, z.data_ptr<float>(), static_cast<size_t>(z.numel()) * sizeof(float));
    return ERR_OK;
}

// The frozen module as it is, and with fused kernels on the CPU. Not every module can be changed so: then there is only
// the first.
void load_module(torch_model *m, const char *path) {
    auto load = [&] {
        torch::jit::Module module = torch::jit::load(path, m->device);
        module.eval();
        // A frozen module has no parameters left: its weights are constants of the graph.
        return module.parameters().size() > 0 ? torch::jit::freeze(module) : module;
    };
    m->module = load();
    if (!m->device.is_cpu()) {
        return;
    }
    try {
        torch::jit::Module again = load();
        m->fast = std::make_unique<torch::jit::Module>(torch::jit::optimize_for_inference(again));
    } catch (...) {
        m->fast.reset();
    }
}

// The first run decides, once and for all, whether the fast module is used: only if it agrees with the other.
torch::IValue first_forward(torch_model *m, const torch::Tensor &x) {
    const double most = 1e-4;
    torch::IValue y = m->module.forward({x});
    try {
        torch::Tensor a = as_maps(y).to(torch::kFloat32), b = as_maps(m->fast->forward({x})).to(torch::kFloat32);
        if (a.dim() > 0 && a.sizes() == b.sizes() && torch::allclose(a, b, most, most)) {
            m->module = *m->fast;
        }
    } catch (...) {
        // it stays with the module as it is
    }
    m->fast.reset();
    return y;
}

} // namespace

extern "C" void torch_set_threads(int threads) {
    try {
        unsigned cores = std::thread::hardware_concurrency();
        (void)at::get_num_threads(); // a thread's first call takes over the process's number: not after this one
        at::set_num_threads(threads > 0 ? threads : static_cast<int>(cores ? cores : 1));
    } catch (...) {
        // the library keeps its own default
    }
}

extern "C" err_kind_t torch_resolve_device(const char *device, char *name, int name_size, err_t *err) {
    try {
        torch::Device d(torch::kCPU);
        err_kind_t k = resolve(device, &d, err);
        if (k == ERR_OK) {
            std::string n = device_name(d);
            std::strncpy(name, n.c_str(), static_cast<size_t>(name_size) - 1);
            name[name_size - 1] = '\0';
        }
        return k;
    } catch (const std::exception &e) {
        return report(err, e.what(), ERR_UNAVAILABLE, "device_missing", "The device cannot be used.");
    } catch (...) {
        return report(err, nullptr, ERR_UNAVAILABLE, "device_missing", "The device cannot be used.");
    }
}

extern "C" err_kind_t torch_model_load(const char *path, const char *device, torch_model_t **out, err_t *err) {
    const char *message = "The model file cannot be loaded. Check that it is TorchScript for this version.";
    *out = nullptr;
    try {
        configure_once();
        auto m = std::make_unique<torch_model>();
        err_kind_t k = resolve(device, &m->device, err);
        if (k != ERR_OK) {
            return k;
        }
        m->name = device_name(m->device);
        c10::InferenceMode guard;
        load_module(m.get(), path);
        *out = m.release();
        return ERR_OK;
    } catch (const std::bad_alloc &) {
        return no_memory(err);
    } catch (const std::exception &e) {
        return report(err, e.what(), ERR_INVALID, "model_unreadable", message);
    } catch (...) {
        return report(err, nullptr, ERR_INVALID, "model_unreadable", message);
    }
}

extern "C" void torch_model_free(torch_model_t *m) {
    try {
        delete m;
    } catch (...) {
        // nothing can be done about a failing destructor
    }
}

extern "C" const char *torch_model_device(const torch_model_t *m) {
    return m->name.c_str();
}

extern "C" err_kind_t torch_model_run(torch_model_t *m, const float *input, int n, int in_channels, int h, int w,
                                      float *output, int out_channels, err_t *err) {
    return torch_model_run_maps(m, input, n, in_channels, h, w, output, out_channels, h, w, err);
}

extern "C" err_kind_t torch_model_run_maps(torch_model_t *m, const float *input, int n, int in_channels, int h, int w,
                                           float *output, int out_channels, int out_h, int out_w, err_t *err) {
    const char *message = "The model failed on this image.";
    try {
        c10::InferenceMode guard;
        const int64_t shape[4] = {n, out_channels, out_h, out_w};
        if (!m->device.is_cpu()) {
            return run_on_accelerator(m, input, {n, in_channels, h, w}, output, shape, err);
        }
        // from_blob wants a mutable pointer; the tensor is only read.
        torch::Tensor x = torch::from_blob(const_cast<float *>(input), {n, in_channels, h, w}, torch::kFloat32);
        torch::IValue y = m->fast ? first_forward(m, x) : m->module.forward({x});
        return copy_output(y, shape, output, err);
    } catch (const std::bad_alloc &) {
        return no_memory(err);
    } catch (const std::exception &e) {
        return report(err, e.what(), ERR_INTERNAL, "inference_failed", message);
    } catch (...) {
        return report(err, nullptr, ERR_INTERNAL, "inference_failed", message);
    }
}

extern "C" err_kind_t torch_model_warm_up(torch_model_t *m, int in_channels, int h, int w, int out_channels,
                                          err_t *err) {
    try {
        std::unique_ptr<float[]> x(new float[static_cast<size_t>(in_channels) * h * w]());
        std::unique_ptr<float[]> y(new float[static_cast<size_t>(out_channels) * h * w]());
        return torch_model_run(m, x.get(), 1, in_channels, h, w, y.get(), out_channels, err);
    } catch (const std::bad_alloc &) {
        return no_memory(err);
    }
}

extern "C" const char *torch_version(void) {
#ifdef TORCH_VERSION
    return TORCH_VERSION;
#else
    return "unknown";
#endif
}

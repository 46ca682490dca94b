// oneCCL's C++ API as a few C functions: one file without torch or Python in it, so that one build serves every
// version of both. library.py calls it, build.py builds it.
//
//     g++ -std=c++17 -O2 -fPIC -shared oneccl.cpp -I<prefix>/include -L<prefix>/lib -l:libccl.so.1 -o liboneccl.so
//
// A group's functions are called by one thread, except oneccl_abort. Without workers of its own (CCL_WORKER_OFFLOAD=0)
// oneCCL works in the threads that call it, on all groups' operations, and is not made for two of them: hence the lock.

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include <oneapi/ccl.hpp>

namespace {

using Clock = std::chrono::steady_clock;
using Set = int (*)(const char* key, const char* value, size_t size);
using Get = long (*)(const char* key, char* value, size_t size);  // bytes, 0 where there is none yet, < 0 for an error

const Clock::duration at_once = std::chrono::microseconds(50), shortest = std::chrono::microseconds(20),
                      longest = std::chrono::microseconds(200);
thread_local std::string last_error;
std::mutex in_oneccl;

/// Where the ranks find each other: the caller's own key-value store.
class Store final : public ccl::kvs_interface {
public:
    Store(Set set, Get get) : set_(set), get_(get) {}

    void set(const ccl::string_class& key, const ccl::vector_class<char>& value) override {
        if (set_(key.c_str(), value.data(), value.size()) != 0) throw ccl::exception("the store is lost");
    }

    ccl::vector_class<char> get(const ccl::string_class& key) override {
        ccl::vector_class<char> value(4096);
        long size = get_(key.c_str(), value.data(), value.size());
        if (size < 0) throw ccl::exception("the store is lost");
        value.resize(size);
        return value;
    }

    int get_id() override { return id_; }

private:
    static inline std::atomic<int> created_{0};
    Set set_;
    Get get_;
    int id_ = created_++;
};

struct Group {
    ccl::communicator comm;
    std::atomic<bool> aborted{false};
};

struct Operation {
    Group& group;
    ccl::event event;
    std::vector<size_t> counts;
};

/// oneCCL's own sum of bfloat16 cuts the result off where the CPU has no AVX512_BF16: sums of gradients shrink.
void add_bfloat16(const void* in, size_t count, void* inout, size_t*, ccl::datatype, const ccl::fn_context*) {
    auto widen = [](uint16_t half) {
        uint32_t bits = uint32_t(half) << 16;
        float value;
        std::memcpy(&value, &bits, sizeof value);
        return value;
    };
    auto a = static_cast<const uint16_t*>(in);
    auto b = static_cast<uint16_t*>(inout);
    for (size_t i = 0; i < count; ++i) {
        float sum = widen(a[i]) + widen(b[i]);
        uint32_t bits;
        std::memcpy(&bits, &sum, sizeof bits);
        bool nan = (bits & 0x7fffffff) > 0x7f800000;
        b[i] = nan ? 0x7fc0 : uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
    }
}

template <class Result>
Result guarded(Result failed, const std::function<Result()>& call) {
    try {
        return call();
    } catch (const std::exception& error) {
        last_error = error.what();
    } catch (...) {
        last_error = "unknown error in oneCCL";
    }
    return failed;
}

template <class Start>
Operation* started(Group* group, Start start) {
    return guarded<Operation*>(nullptr, [&]() {
        auto operation = std::unique_ptr<Operation>(new Operation{*group, {}, {}});
        std::lock_guard<std::mutex> lock(in_oneccl);
        operation->event = start(*operation);
        return operation.release();
    });
}

}  // namespace

extern "C" {

const char* oneccl_error() { return last_error.c_str(); }

const char* oneccl_version() {
    static std::string text = ccl::get_library_version().full;
    return text.c_str();
}

Group* oneccl_join(int rank, int size, Set set, Get get) {
    return guarded<Group*>(nullptr, [&]() {
        std::lock_guard<std::mutex> lock(in_oneccl);
        ccl::init();
        return new Group{ccl::create_communicator(size, rank, std::make_shared<Store>(set, get))};
    });
}

void oneccl_leave(Group* group) {
    std::lock_guard<std::mutex> lock(in_oneccl);
    delete group;
}

/// From any thread: the operation that is waited for ends with an error, and so do all after it.
void oneccl_abort(Group* group) { group->aborted = true; }

Operation* oneccl_allreduce(Group* group, const void* in, void* out, size_t count, int type, int reduction) {
    return started(group, [&](Operation&) {
        auto attr = ccl::create_operation_attr<ccl::allreduce_attr>();
        auto how = ccl::reduction(reduction);
        static const bool over_mpi = [] { auto name = getenv("CCL_ATL_TRANSPORT"); return name && !strcmp(name, "mpi"); }();
        if (ccl::datatype(type) == ccl::datatype::bfloat16 && how == ccl::reduction::sum && !over_mpi) {
            how = ccl::reduction::custom;
            attr.set<ccl::allreduce_attr_id::reduction_fn>(ccl::reduction_fn(add_bfloat16));
        }
        return ccl::allreduce(in, out, count, ccl::datatype(type), how, group->comm, attr);
    });
}

Operation* oneccl_reduce(Group* group, const void* in, void* out, size_t count, int type, int reduction, int root) {
    return started(group, [&](Operation&) {
        return ccl::reduce(in, out, count, ccl::datatype(type), ccl::reduction(reduction), root, group->comm);
    });
}

Operation* oneccl_broadcast(Group* group, void* data, size_t count, int type, int root) {
    return started(group, [&](Operation&) {
        return ccl::broadcast(data, count, ccl::datatype(type), root, group->comm);
    });
}

/// `count` elements of each rank, one after the other, in `out`.
Operation* oneccl_allgather(Group* group, const void* in, void* out, size_t count, int type) {
    return started(group, [&](Operation& operation) {
        operation.counts.assign(group->comm.size(), count);
        return ccl::allgatherv(in, count, out, operation.counts, ccl::datatype(type), group->comm);
    });
}

Operation* oneccl_reduce_scatter(Group* group, const void* in, void* out, size_t count, int type, int reduction) {
    return started(group, [&](Operation&) {
        return ccl::reduce_scatter(in, out, count, ccl::datatype(type), ccl::reduction(reduction), group->comm);
    });
}

Operation* oneccl_barrier(Group* group) {
    return started(group, [&](Operation&) { return ccl::barrier(group->comm); });
}

/// 1 done, 0 not within `seconds`, -1 an error.
///
/// With CCL_WORKER_OFFLOAD=0 oneCCL only moves on in here. It cannot tell when there is something to do: looks at once
/// for a moment, then at intervals that grow with the time it already takes, so that the core is the net's.
int oneccl_wait(Operation* operation, double seconds) {
    return guarded<int>(-1, [&]() {
        using namespace std::chrono;
        auto start = Clock::now();
        auto end = start + duration_cast<Clock::duration>(duration<double>(seconds));
        for (;;) {
            {
                std::lock_guard<std::mutex> lock(in_oneccl);
                if (operation->event.test()) return 1;
            }
            if (operation->group.aborted) throw ccl::exception("aborted");
            auto now = Clock::now();
            if (now >= end) return 0;
            if (now - start > at_once) std::this_thread::sleep_for(std::clamp((now - start) / 50, shortest, longest));
        }
    });
}

/// An operation that has not ended is left alone: oneCCL may still write to its buffers.
void oneccl_free(Operation* operation) {
    std::lock_guard<std::mutex> lock(in_oneccl);
    delete operation;
}

}  // extern "C"

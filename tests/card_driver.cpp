// A driver of a card that is not there: it answers every question and does nothing. See card_driver.py.

#include <c10/core/impl/DeviceGuardImplInterface.h>

namespace c10::impl {

struct Driver final : NoOpDeviceGuardImpl<DeviceType::CUDA> {
  Device card() const { return Device(DeviceType::CUDA, 0); }
  DeviceIndex deviceCount() const noexcept override { return ACCELERATOR; }  // gradients start a thread for each
  Device getDevice() const override { return card(); }
  Stream getStream(Device) const noexcept override { return Stream(Stream::DEFAULT, card()); }
  void record(void** event, const Stream&, DeviceIndex, EventFlag) const override { *event = nullptr; }
  void block(void*, const Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void destroyEvent(void*, DeviceIndex) const noexcept override {}
  void synchronizeEvent(void*) const override {}
  bool queryStream(const Stream&) const override { return true; }
  void synchronizeStream(const Stream&) const override {}
  void recordDataPtrOnStream(const DataPtr&, const Stream&) const override {}
};
C10_REGISTER_GUARD_IMPL(CUDA, Driver)

}  // namespace c10::impl

#if ACCELERATOR
#include <ATen/detail/CUDAHooksInterface.h>

namespace at {

struct CUDAHooks final : CUDAHooksInterface {  // torch asks for a class of this name
  explicit CUDAHooks(CUDAHooksArgs) {}
  void init() const override {}
  bool hasCUDA() const override { return true; }
  bool hasPrimaryContext(DeviceIndex) const override { return true; }
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  DeviceIndex deviceCount() const override { return 1; }
  DeviceIndex getCurrentDevice() const override { return 0; }
};
REGISTER_CUDA_HOOKS(CUDAHooks)

}  // namespace at
#endif

//! The first GPU, where there is one.

#[cfg(feature = "cuda")]
pub fn get() -> Result<&'static flip::kernel::cuda::driver::CudaGpu, String> {
    use flip::kernel::cuda::driver::CudaGpu;
    static GPU: std::sync::OnceLock<Result<CudaGpu, String>> = std::sync::OnceLock::new();
    let made = GPU.get_or_init(|| {
        let gpus = flip::device::gpus().map_err(|why| why.to_string())?;
        println!("{}", gpus[0]);
        let device = cudarc::driver::CudaDevice::new(0).map_err(|error| error.to_string())?;
        CudaGpu::new(device).map_err(|error| error.to_string())
    });
    made.as_ref().map_err(String::clone)
}

#[cfg(not(feature = "cuda"))]
pub fn get() -> Result<&'static super::emulator::Emulator, String> {
    match flip::device::gpus() {
        Err(why) => Err(why.to_string()),
        Ok(gpus) => panic!("{gpus:?} without the feature `cuda`"),
    }
}

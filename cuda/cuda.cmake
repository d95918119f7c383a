# Adds the CUDA backend to the library: STET_CUDA is ON or SIMULATED. Included by the root file.
file(GLOB STET_CUDA_SOURCES CONFIGURE_DEPENDS RELATIVE ${PROJECT_SOURCE_DIR} cuda/*.cu cuda/kernels/*.cu)
target_sources(stet PRIVATE ${STET_CUDA_SOURCES})

if(STET_CUDA STREQUAL "SIMULATED")
  file(GLOB simulated CONFIGURE_DEPENDS RELATIVE ${PROJECT_SOURCE_DIR} cuda/simulated/*.cpp)
  target_sources(stet PRIVATE ${simulated})
  set_source_files_properties(${STET_CUDA_SOURCES} PROPERTIES LANGUAGE CXX COMPILE_OPTIONS "-xc++")
  # The simulated device's <cuda_runtime.h> stands where the toolkit's would.
  set_source_files_properties(${STET_CUDA_SOURCES} ${simulated} PROPERTIES
    INCLUDE_DIRECTORIES ${PROJECT_SOURCE_DIR}/cuda/simulated/include COMPILE_DEFINITIONS STET_CUDA_SIMULATED)
else()
  include(CheckLanguage)
  check_language(CUDA)
  find_package(CUDAToolkit)
  if(NOT CMAKE_CUDA_COMPILER OR NOT CUDAToolkit_FOUND)
    message(FATAL_ERROR "STET_CUDA=ON needs nvcc and the CUDA Toolkit: put nvcc on the PATH or set CUDACXX, or "
      "configure with -DSTET_CUDA=OFF (CPU alone) or -DSTET_CUDA=SIMULATED (tests without a GPU)")
  endif()
  if(NOT CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES 80-real 90a-real 90-virtual)
  endif()
  enable_language(CUDA)
  if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)  # CMake 3.25 does not know that nvcc has it
    set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
    set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION -std=c++20)
  endif()
  set_target_properties(stet PROPERTIES CUDA_ARCHITECTURES "${CMAKE_CUDA_ARCHITECTURES}")
  # --fmad=false: one rounding rule, the CPU's; GEMMs are cuBLAS's own affair.
  target_compile_options(stet PRIVATE
    $<$<COMPILE_LANGUAGE:CUDA>:--fmad=false --expt-relaxed-constexpr -Xcompiler=-ffp-contract=off>)
  target_link_libraries(stet PRIVATE CUDA::cudart_static CUDA::cublasLt)
  set(STET_FIND_CUDA "find_dependency(CUDAToolkit)")  # where they are is each machine's affair
endif()

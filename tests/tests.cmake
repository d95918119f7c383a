# The tests: one Catch2 program, one CTest entry for each source file (a process for each case costs more than the
# cases do), and the checks of the house: the consumer project and the kernels' symbols. Included by the root file.
find_package(Catch2 REQUIRED)
file(GLOB_RECURSE test_files CONFIGURE_DEPENDS RELATIVE ${PROJECT_SOURCE_DIR}/tests tests/*_test.cpp)
list(FILTER test_files EXCLUDE REGEX "^consumer/")
if(STET_CUDA STREQUAL "SIMULATED")
  file(GLOB simulated_tests CONFIGURE_DEPENDS tests/cuda/simulated_*.cpp tests/cuda/products_parity_test.cpp)
  set_source_files_properties(${simulated_tests} PROPERTIES COMPILE_DEFINITIONS STET_CUDA_SIMULATED
    INCLUDE_DIRECTORIES ${PROJECT_SOURCE_DIR}/cuda/simulated/include)
else()
  list(FILTER test_files EXCLUDE REGEX "^cuda/simulated_")
endif()
# These say nothing more on another device: the CPU's thread pool, its instruction sets, files that no tensor of a
# device is read from, the house itself, and the tests that name both devices.
set(cpu_alone threads_test math_test fashion_mnist_test idx_test images_test loader_test includes_test links_test
  tokenizer_test tokenizer_golden_test tokenizer_corrupt_test tokenizer_json_test split_test llama2c_test train_bpe_test
  text_test labelled_text_test tradeoff_test pretrained_corrupt_test pretrained_config_test json_file_test)
set(test_sources ${test_files})
list(TRANSFORM test_sources PREPEND tests/)
file(GLOB support_sources CONFIGURE_DEPENDS tests/support/*.cpp)

add_executable(stet_tests tests/main.cpp ${test_sources} ${support_sources})
target_link_libraries(stet_tests PRIVATE stet::stet Catch2::Catch2 $<BUILD_INTERFACE:${ZLIB_LIBRARIES}>)
target_include_directories(stet_tests PRIVATE tests)
if(STET_CUDA STREQUAL "SIMULATED")
  target_include_directories(stet_tests SYSTEM PRIVATE ${CBLAS_INCLUDE_DIR})
endif()
target_include_directories(stet_tests SYSTEM PRIVATE ${ZLIB_INCLUDE_DIRS}
  $<TARGET_PROPERTY:nlohmann_json::nlohmann_json,INTERFACE_INCLUDE_DIRECTORIES>)
set_source_files_properties(tests/main.cpp PROPERTIES COMPILE_OPTIONS -O0)  # all of Catch2, and nothing of ours
target_compile_definitions(stet_tests PRIVATE STET_SOURCE_DIR="${PROJECT_SOURCE_DIR}")

# Catch tags a case with its file's name; a file in which nothing ran is a failure (version 3 does that by itself).
if(Catch2_VERSION VERSION_LESS 3)
  set(no_tests_fail --warn NoTests)
endif()
set(seen)
foreach(file IN LISTS test_files)
  cmake_path(GET file PARENT_PATH folder)
  cmake_path(GET file STEM name)
  if(name IN_LIST seen)
    message(SEND_ERROR "tests/${file}: another test file is called ${name}.cpp; CTest selects by name, rename one")
  endif()
  list(APPEND seen ${name})
  add_test(NAME ${folder}/${name} COMMAND stet_tests --filenames-as-tags "[#${name}]" ${no_tests_fail})
  set_tests_properties(${folder}/${name} PROPERTIES LABELS "${folder}" TIMEOUT 900)
  if(NOT STET_CUDA STREQUAL "OFF" AND NOT folder STREQUAL cuda AND NOT name IN_LIST cpu_alone)
    add_test(NAME ${folder}/${name}@cuda COMMAND stet_tests --filenames-as-tags "[#${name}]" ${no_tests_fail})
    set_tests_properties(${folder}/${name}@cuda PROPERTIES LABELS "cuda" TIMEOUT 900 SKIP_RETURN_CODE 77
      ENVIRONMENT STET_TEST_DEVICE=cuda)
  endif()
  if(folder MATCHES "^(tensor|autograd)" AND NOT name STREQUAL threads_test)  # the arithmetic again, under each instruction set that the processor has
    foreach(isa IN LISTS STET_ISAS)
      add_test(NAME ${folder}/${name}@${isa} COMMAND bash ${PROJECT_SOURCE_DIR}/tests/support/under_isa.sh ${isa}
        $<TARGET_FILE:stet_tests> --filenames-as-tags "[#${name}]" ${no_tests_fail})
      set_tests_properties(${folder}/${name}@${isa} PROPERTIES LABELS isa TIMEOUT 900 SKIP_RETURN_CODE 77)
    endforeach()
  endif()
endforeach()

# Graphs of a million nodes on a stack of one megabyte.
add_test(NAME house/deep_graph COMMAND bash -c "ulimit -s 1024 && exec \"$<TARGET_FILE:stet_tests>\" '[deep]'")
set_tests_properties(house/deep_graph PROPERTIES LABELS house TIMEOUT 600)

if(STET_BUILD_EXAMPLES)
  add_test(NAME examples/forgetting_sample COMMAND bash ${PROJECT_SOURCE_DIR}/tests/support/last_line.sh
    "Frozen params: 8,320   Trainable params: 258" $<TARGET_FILE:examples_forgetting_sample>)
  add_test(NAME examples/finetune_domain COMMAND bash ${PROJECT_SOURCE_DIR}/tests/support/finetune_domain.sh
    $<TARGET_FILE:examples_finetune_domain>)
  add_test(NAME examples/model_folders COMMAND bash ${PROJECT_SOURCE_DIR}/tests/support/model_folders.sh
    $<TARGET_FILE:stet_tests> $<TARGET_FILE:examples_finetune_pretrained> $<TARGET_FILE:examples_generate>)
  add_test(NAME examples/finetune_minilm COMMAND bash ${PROJECT_SOURCE_DIR}/tests/support/finetune_minilm.sh
    $<TARGET_FILE:examples_finetune_minilm>)
  add_test(NAME examples/scripts COMMAND bash ${PROJECT_SOURCE_DIR}/tests/support/scripts.sh
    $<TARGET_FILE:examples_forgetting_sample> $<TARGET_FILE:examples_custom_strategy>)
  set_tests_properties(examples/forgetting_sample examples/finetune_domain examples/model_folders examples/finetune_minilm
    examples/scripts PROPERTIES LABELS examples TIMEOUT 1200)
  function(claim_test name)
    add_test(NAME examples/claims/${name} COMMAND bash ${PROJECT_SOURCE_DIR}/tests/support/claim.sh
      $<TARGET_FILE:claims_${name}> ${ARGN})
    set_tests_properties(examples/claims/${name} PROPERTIES LABELS examples TIMEOUT 1200)
  endfunction()
  claim_test(skewed_data "4,000 of two classes" "Turned by 90 degrees" "1,000 of all: ")
  claim_test(not_inevitable "LoRA r 8" "% of the forgetting" "frozen but for the top block")
  claim_test(where_it_happens "position embedding" "block 2" "undone %")
  claim_test(interference "cosine before the first step" "transformer.ln_f" "correlation over intervals")
  claim_test(attention_heads "2.3" "The entropy of heads" "The distance of heads")
  claim_test(polyglot "replay of 10 % French" "French: the loss rises")
endif()

if(STET_KERNELS)
  foreach(isa IN LISTS STET_ISAS)
    add_test(NAME house/symbols_${isa} COMMAND_EXPAND_LISTS
      COMMAND bash ${PROJECT_SOURCE_DIR}/tests/house/symbols.sh ${isa} $<TARGET_OBJECTS:stet_kernels_${isa}>)
    set_tests_properties(house/symbols_${isa} PROPERTIES LABELS house)
  endforeach()
endif()
foreach(script mutations cuda/broken_kernels)
  string(REPLACE "cuda/" "" name ${script})
  add_test(NAME house/${name}_fit COMMAND bash ${PROJECT_SOURCE_DIR}/tests/${script}.sh)
  set_tests_properties(house/${name}_fit PROPERTIES LABELS house ENVIRONMENT CHECK_MUTATIONS=1)
endforeach()
add_test(NAME house/symbols_selfcheck COMMAND bash ${PROJECT_SOURCE_DIR}/tests/house/symbols.sh --selfcheck ${CMAKE_CXX_COMPILER})
set_tests_properties(house/symbols_selfcheck PROPERTIES LABELS house)

add_test(NAME consumer COMMAND ${CMAKE_COMMAND} -DBUILD=${PROJECT_BINARY_DIR} -DCONFIG=$<CONFIG>
  -DCXX=${CMAKE_CXX_COMPILER} "-DFLAGS=${CMAKE_CXX_FLAGS}" "-DGENERATOR=${CMAKE_GENERATOR}"
  -P ${PROJECT_SOURCE_DIR}/tests/consumer/run.cmake)
set_tests_properties(consumer PROPERTIES LABELS house TIMEOUT 600)

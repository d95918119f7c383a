// Which sanitizer this was compiled with: g++ defines a macro, clang has to be asked.
#pragma once

#if defined(__SANITIZE_THREAD__)
#define STET_THREAD_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define STET_THREAD_SANITIZER 1
#endif
#endif

#if defined(__SANITIZE_ADDRESS__)
#define STET_ADDRESS_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define STET_ADDRESS_SANITIZER 1
#endif
#endif

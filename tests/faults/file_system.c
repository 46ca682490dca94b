/* A file system with less than POSIX, or one that fails: for LD_PRELOAD. FAULTS is a list, separated by blanks:
 *   link symlink fsync-folder fsync chmod utime rename-over flock fallocate    the call is not supported
 *   open:ENDING:ERRNO read:ENDING:ERRNO write:ENDING:ERRNO list:ENDING:ERRNO   it fails where the path ends so
 * UNDER limits all of it to paths below a folder. Errors are those that CIFS, exFAT and FUSE give. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#define REAL(name, type) ((type)dlsym(RTLD_NEXT, name))
#define FAIL(number) do { errno = (number); return -1; } while (0)

static int under(const char *path) {
  const char *root = getenv("UNDER");
  char whole[4096] = "";
  if (root == NULL) return 1;
  if (path == NULL) return 0;
  if (path[0] != '/' && getcwd(whole, 2048) != NULL) strcat(whole, "/");
  strncat(whole, path, 2000);
  return strncmp(whole, root, strlen(root)) == 0;
}

static int lacks(const char *call, const char *path) {
  const char *faults = getenv("FAULTS");
  size_t length = strlen(call);
  for (const char *at = faults; at != NULL && (at = strstr(at, call)) != NULL; at += length)
    if ((at == faults || at[-1] == ' ') && (at[length] == ' ' || at[length] == 0)) return under(path);
  return 0;
}

/* The error of "CALL:ENDING:ERRNO" for this path, or 0. */
static int failure(const char *call, const char *path) {
  const char *faults = getenv("FAULTS");
  char copy[1024], *rest = copy, *word;
  if (faults == NULL || path == NULL || !under(path)) return 0;
  strncpy(copy, faults, sizeof copy - 1);
  copy[sizeof copy - 1] = 0;
  while ((word = strsep(&rest, " ")) != NULL) {
    char *name = strsep(&word, ":"), *ending = strsep(&word, ":");
    if (ending == NULL || word == NULL || strcmp(name, call) != 0) continue;
    size_t length = strlen(ending), whole = strlen(path);
    if (whole >= length && strcmp(path + whole - length, ending) == 0) return atoi(word);
  }
  return 0;
}

static const char *path_of(int descriptor) {
  static __thread char path[4096];
  char link[64];
  int kept = errno;
  snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
  ssize_t length = readlink(link, path, sizeof path - 1);
  errno = kept;
  path[length < 0 ? 0 : length] = 0;
  return path;
}

int link(const char *from, const char *to) {
  if (lacks("link", to)) FAIL(EPERM);
  return REAL("link", int (*)(const char *, const char *))(from, to);
}
int linkat(int a, const char *from, int b, const char *to, int flags) {
  if (lacks("link", to)) FAIL(EPERM);
  return REAL("linkat", int (*)(int, const char *, int, const char *, int))(a, from, b, to, flags);
}
int symlink(const char *to, const char *path) {
  if (lacks("symlink", path)) FAIL(EPERM);
  return REAL("symlink", int (*)(const char *, const char *))(to, path);
}
int symlinkat(const char *to, int at, const char *path) {
  if (lacks("symlink", path)) FAIL(EPERM);
  return REAL("symlinkat", int (*)(const char *, int, const char *))(to, at, path);
}
int fsync(int descriptor) {
  struct stat status;
  if (fstat(descriptor, &status) == 0 && lacks(S_ISDIR(status.st_mode) ? "fsync-folder" : "fsync", path_of(descriptor)))
    FAIL(EINVAL);
  return REAL("fsync", int (*)(int))(descriptor);
}
int chmod(const char *path, mode_t mode) {
  if (lacks("chmod", path)) FAIL(EPERM);
  return REAL("chmod", int (*)(const char *, mode_t))(path, mode);
}
int fchmodat(int at, const char *path, mode_t mode, int flags) {
  if (lacks("chmod", path)) FAIL(EPERM);
  return REAL("fchmodat", int (*)(int, const char *, mode_t, int))(at, path, mode, flags);
}
int fchmod(int descriptor, mode_t mode) {
  if (lacks("chmod", path_of(descriptor))) FAIL(EPERM);
  return REAL("fchmod", int (*)(int, mode_t))(descriptor, mode);
}
int utimensat(int at, const char *path, const struct timespec times[2], int flags) {
  if (lacks("utime", path)) FAIL(EPERM);
  return REAL("utimensat", int (*)(int, const char *, const struct timespec *, int))(at, path, times, flags);
}
int flock(int descriptor, int operation) {
  if (lacks("flock", path_of(descriptor))) FAIL(ENOLCK);
  return REAL("flock", int (*)(int, int))(descriptor, operation);
}
int posix_fallocate(int descriptor, off_t offset, off_t length) {
  if (lacks("fallocate", path_of(descriptor))) return EOPNOTSUPP;
  return REAL("posix_fallocate", int (*)(int, off_t, off_t))(descriptor, offset, length);
}
static int over_another(const char *to) { return lacks("rename-over", to) && access(to, F_OK) == 0; }
int rename(const char *from, const char *to) {
  if (over_another(to)) FAIL(EEXIST);
  return REAL("rename", int (*)(const char *, const char *))(from, to);
}
int renameat(int a, const char *from, int b, const char *to) {
  if (over_another(to)) FAIL(EEXIST);
  return REAL("renameat", int (*)(int, const char *, int, const char *))(a, from, b, to);
}

#define OPEN(symbol)                                                                                                   \
  int symbol(const char *path, int flags, ...) {                                                                       \
    va_list rest;                                                                                                      \
    va_start(rest, flags);                                                                                             \
    mode_t mode = va_arg(rest, mode_t);                                                                                \
    va_end(rest);                                                                                                      \
    int number = failure("open", path);                                                                                \
    if (number) FAIL(number);                                                                                          \
    return REAL(#symbol, int (*)(const char *, int, ...))(path, flags, mode);                                          \
  }
OPEN(open)
OPEN(open64)
ssize_t read(int descriptor, void *buffer, size_t size) {
  int number = getenv("FAULTS") != NULL && strstr(getenv("FAULTS"), "read:") ? failure("read", path_of(descriptor)) : 0;
  if (number) FAIL(number);
  return REAL("read", ssize_t (*)(int, void *, size_t))(descriptor, buffer, size);
}
ssize_t write(int descriptor, const void *buffer, size_t size) {
  int number = getenv("FAULTS") != NULL && strstr(getenv("FAULTS"), "write:") ? failure("write", path_of(descriptor)) : 0;
  if (number) FAIL(number);
  return REAL("write", ssize_t (*)(int, const void *, size_t))(descriptor, buffer, size);
}
DIR *opendir(const char *path) {
  int number = failure("list", path);
  if (number) { errno = number; return NULL; }
  return REAL("opendir", DIR *(*)(const char *))(path);
}

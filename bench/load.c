/* The load of the benches: one operation on a mounted tree, over and over for a given time, on one core.
 *
 *   load OPERATION CPU MILLISECONDS PATH
 *
 * prints "COUNT BYTES SECONDS". PATH is a file for getattr, seq and rand, and a directory of files for stat and open.
 * File data is read with O_DIRECT: the kernel's page cache stays out of it, whatever the server asked for.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <err.h>
#include <fcntl.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { BLOCK = 1 << 20, PAGE = 4096, MOST_NAMES = 4096, BATCH = 16 };

static char *names[MOST_NAMES];
static size_t n_names;
static const char *path;
static int fd;
static char *buffer;
static off_t size, at;
static uint64_t seed = 88172645463325252ull;

static int is_file(int dir, const struct dirent *entry)
{
	struct stat st;

	return entry->d_type == DT_REG ||
	       (entry->d_type == DT_UNKNOWN && !fstatat(dir, entry->d_name, &st, 0) && S_ISREG(st.st_mode));
}

static void list_names(void)
{
	DIR *dir = opendir(path);
	struct dirent *entry;

	if (!dir)
		err(1, "%s", path);
	while (n_names < MOST_NAMES && (entry = readdir(dir)))
		if (is_file(dirfd(dir), entry))
			names[n_names++] = strdup(entry->d_name);
	closedir(dir);
	if (!n_names)
		errx(1, "%s: no files", path);
	if (chdir(path))
		err(1, "%s", path);
}

static void open_path(int flags)
{
	fd = open(path, O_RDONLY | flags);
	if (fd < 0)
		err(1, "%s", path);
	size = lseek(fd, 0, SEEK_END);
}

static ssize_t do_getattr(size_t i)
{
	struct stat st;

	(void)i;
	return fstat(fd, &st);
}

static ssize_t do_stat(size_t i)
{
	struct stat st;

	return stat(names[i % n_names], &st);
}

static ssize_t do_open(size_t i)
{
	int f = open(names[i % n_names], O_RDONLY | O_DIRECT);
	ssize_t n = f < 0 ? -1 : read(f, buffer, PAGE);

	if (f >= 0)
		close(f);
	return n;
}

static ssize_t do_seq(size_t i)
{
	ssize_t n = pread(fd, buffer, BLOCK, at);

	(void)i;
	at = n > 0 && at + n < size ? at + n : 0;
	return n;
}

static ssize_t do_rand(size_t i)
{
	(void)i;
	seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
	return pread(fd, buffer, PAGE, (off_t)(seed % (uint64_t)(size / PAGE)) * PAGE);
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		ssize_t (*once)(size_t);
	} operations[] = { { "getattr", do_getattr }, { "stat", do_stat }, { "open", do_open }, { "seq", do_seq }, { "rand", do_rand } };
	ssize_t (*once)(size_t) = NULL, n;
	size_t count = 0, bytes = 0;
	double start, end;
	cpu_set_t cpus;

	if (argc != 5)
		errx(64, "usage: load OPERATION CPU MILLISECONDS PATH");
	for (size_t i = 0; i < sizeof(operations) / sizeof(*operations); i++)
		if (!strcmp(argv[1], operations[i].name))
			once = operations[i].once;
	if (!once)
		errx(64, "no operation %s", argv[1]);
	CPU_ZERO(&cpus);
	CPU_SET(atoi(argv[2]), &cpus);
	if (sched_setaffinity(0, sizeof cpus, &cpus))
		err(1, "sched_setaffinity");
	path = argv[4];
	buffer = aligned_alloc(PAGE, BLOCK);
	if (once == do_stat || once == do_open)
		list_names();
	else
		open_path(once == do_getattr ? 0 : O_DIRECT);
	start = now();
	end = start + atoi(argv[3]) / 1e3;
	do
		for (int i = 0; i < BATCH; i++, count++, bytes += n)
			if ((n = once(count)) < 0)
				err(1, "%s", argv[1]);
	while (now() < end);
	printf("%zu %zu %.9f\n", count, bytes, now() - start);
	return 0;
}

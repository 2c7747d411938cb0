/* The C peer of bench/engine.py: the same tree as its memtree, in memory, by libfuse's low-level API, one thread.
 *
 *   peer MOUNTPOINT [-o OPTIONS]
 *
 * The tree: "big" of BIG bytes, and "small" with FILES files f0000… of SMALL bytes each. All timeouts are zero.
 */
#define FUSE_USE_VERSION 312
#define _GNU_SOURCE
#include <errno.h>
#include <fuse_lowlevel.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#ifndef BIG
#define BIG (256u << 20)
#endif
#ifndef FILES
#define FILES 1000
#endif
#ifndef SMALL
#define SMALL 4096
#endif

enum { ROOT = 1, DIRECTORY = 2, LARGE = 3, FIRST = 4 };

static char *data;

static int fill(fuse_ino_t ino, struct stat *st)
{
	memset(st, 0, sizeof *st);
	if (ino >= FIRST + FILES)
		return ESTALE;
	st->st_ino = ino;
	st->st_mode = ino <= DIRECTORY ? S_IFDIR | 0755 : S_IFREG | 0644;
	st->st_nlink = ino <= DIRECTORY ? 2 : 1;
	st->st_size = ino == LARGE ? BIG : ino >= FIRST ? SMALL : 0;
	st->st_blocks = (st->st_size + 511) / 512;
	st->st_blksize = 4096;
	return 0;
}

static void do_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fuse_entry_param entry = { 0 };

	if (parent == DIRECTORY && name[0] == 'f' && strlen(name) == 5 && atoi(name + 1) < FILES)
		entry.ino = FIRST + atoi(name + 1);
	else if (parent == ROOT && !strcmp(name, "small"))
		entry.ino = DIRECTORY;
	else if (parent == ROOT && !strcmp(name, "big"))
		entry.ino = LARGE;
	if (!entry.ino || fill(entry.ino, &entry.attr))
		fuse_reply_err(req, ENOENT);
	else
		fuse_reply_entry(req, &entry);
}

static void do_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct stat st;
	int error = fill(ino, &st);

	(void)fi;
	if (error)
		fuse_reply_err(req, error);
	else
		fuse_reply_attr(req, &st, 0);
}

static void do_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	fuse_reply_open(req, fi);
}

static void do_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
	off_t end = ino == LARGE ? BIG : SMALL;

	(void)fi;
	if (offset >= end)
		fuse_reply_buf(req, NULL, 0);
	else
		fuse_reply_buf(req, data + offset, (off_t)size < end - offset ? size : (size_t)(end - offset));
}

static void do_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
	int count = ino == DIRECTORY ? FILES : 2;
	char name[8], *buffer = malloc(size);
	size_t used = 0, more;
	struct stat st;

	(void)fi;
	for (; buffer && offset < count; offset++, used += more) {
		if (ino == DIRECTORY)
			snprintf(name, sizeof name, "f%04d", (int)offset);
		else
			strcpy(name, offset ? "big" : "small");
		fill((ino == DIRECTORY ? FIRST : DIRECTORY) + offset, &st);
		more = fuse_add_direntry(req, buffer + used, size - used, name, &st, offset + 1);
		if (more > size - used)
			break;
	}
	fuse_reply_buf(req, buffer, used);
	free(buffer);
}

int main(int argc, char **argv)
{
	static const struct fuse_lowlevel_ops operations = {
		.lookup = do_lookup, .getattr = do_getattr, .open = do_open, .read = do_read, .readdir = do_readdir,
	};
	const char *point = argv[1];
	struct fuse_session *session;
	struct fuse_args args;
	int failed = 1;

	if (argc < 2)
		return 64;
	argv[1] = argv[0];
	args = (struct fuse_args)FUSE_ARGS_INIT(argc - 1, argv + 1);
	data = aligned_alloc(4096, BIG); /* as ours: the kernel copies page by page */
	if (!data)
		return 1;
	memset(data, 'x', BIG);
	session = fuse_session_new(&args, &operations, sizeof operations, NULL);
	if (session && !fuse_session_mount(session, point)) {
		failed = fuse_session_loop(session);
		fuse_session_unmount(session);
	}
	return failed != 0;
}

package replica

import (
	"syscall"
	"unsafe"

	"mailcutover/routing"
)

// largeLoad is the size of new mappings, in bytes, from which on largePages does anything.
const largeLoad = 16 << 20

// largePages asks the kernel to put the State into pages of 2 MiB, if that many mappings
// are new. A decision looks into two places of some 200 MiB; with small pages half of its
// time is the search for the page, measured with bench/table.
//
// It asks for them now (MADV_COLLAPSE), and for later too (MADV_HUGEPAGE): the Go runtime
// gives back what is free between the mappings and thereby breaks large pages, which the
// kernel then puts together again. The rest of the pages at the edges is other memory of
// this process, which doesn't notice. Kernels before 6.1 don't know MADV_COLLAPSE, and any
// kernel may decline: then decisions are slower, so errors are of no interest.
func largePages(s *routing.State, mappings []*routing.Mapping) {
	loaded := 0
	for _, m := range mappings {
		loaded += m.Size()
	}
	if loaded < largeLoad {
		return
	}
	const (
		page     = 2 << 20
		hugepage = 14 // MADV_HUGEPAGE
		collapse = 25 // MADV_COLLAPSE, asm-generic/mman-common.h
	)
	for b := range s.Memory() {
		from := uintptr(unsafe.Pointer(unsafe.SliceData(b)))
		to := (from + uintptr(len(b)) + page - 1) &^ (page - 1)
		from &^= page - 1
		syscall.Syscall(syscall.SYS_MADVISE, from, to-from, hugepage)
		syscall.Syscall(syscall.SYS_MADVISE, from, to-from, collapse)
	}
}

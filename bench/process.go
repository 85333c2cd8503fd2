package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of CPU times in /proc (sysconf(_SC_CLK_TCK), 100 on every Linux).
const tick = 10 * time.Millisecond

// tree returns a process and all its descendants.
func tree(pid int) ([]int, error) {
	children := make(map[int][]int)
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	for _, name := range stats {
		f, err := stat(name)
		if err != nil {
			continue // it ended meanwhile
		}
		child, _ := strconv.Atoi(filepath.Base(filepath.Dir(name)))
		parent, _ := strconv.Atoi(f[1])
		children[parent] = append(children[parent], child)
	}
	all := []int{pid}
	for i := 0; i < len(all); i++ {
		all = append(all, children[all[i]]...)
	}
	return all, nil
}

// stat returns the fields of proc(5)'s stat that stand behind the program's name: the
// state is the first, the parent the second.
func stat(name string) ([]string, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(f) < 15 {
		return nil, fmt.Errorf("%s has %d fields behind the name, want 15 at least", name, len(f))
	}
	return f, nil
}

// cpu returns the CPU time, user and system, that a process and its descendants have
// used, those that ended and were waited for included.
func cpu(pid int) (time.Duration, error) {
	pids, err := tree(pid)
	if err != nil {
		return 0, err
	}
	var ticks int64
	for _, p := range pids {
		f, err := stat(fmt.Sprintf("/proc/%d/stat", p))
		if err != nil {
			if p == pid {
				return 0, err
			}
			continue // counted by its parent
		}
		for _, field := range f[11:15] { // utime, stime, cutime, cstime
			n, err := strconv.ParseInt(field, 10, 64)
			if err != nil {
				return 0, fmt.Errorf("CPU time of process %d: %w", p, err)
			}
			ticks += n
		}
	}
	return time.Duration(ticks) * tick, nil
}

// resident returns the resident memory, in bytes, of a process (VmRSS); of one with
// children the sum of the proportional shares (Pss), so that what they share counts once.
func resident(pid int) (float64, error) {
	pids, err := tree(pid)
	if err != nil {
		return 0, err
	}
	if len(pids) == 1 {
		return kib(fmt.Sprintf("/proc/%d/status", pid), "VmRSS:")
	}
	total := 0.0
	for _, p := range pids {
		n, err := kib(fmt.Sprintf("/proc/%d/smaps_rollup", p), "Pss:")
		if err != nil {
			if p == pid {
				return 0, err
			}
			continue
		}
		total += n
	}
	return total, nil
}

// kib reads a line "field N kB" of a file of /proc, and returns it in bytes.
func kib(name, field string) (float64, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if value, ok := strings.CutPrefix(line, field); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 10, 64)
			if err != nil {
				return 0, fmt.Errorf("%s in %s: %w", field, name, err)
			}
			return float64(n) * 1024, nil
		}
	}
	return 0, fmt.Errorf("%s has no %s", name, field)
}

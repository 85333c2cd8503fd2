//go:build unix

package splice

import (
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// waiters watches with a goroutine for each thing that a pair waits for, in package net's
// poller. It is the watcher where there is no epoll.
type waiters struct {
	group sync.WaitGroup
	mu    sync.Mutex
	waits map[wait]struct{}
}

// wait is one thing that is waited for.
type wait struct {
	j *Joint
	n news
}

func newWaiters(*Engine) (watcher, error) { return &waiters{waits: make(map[wait]struct{})}, nil }

func (w *waiters) add(*Joint) error { return nil } // await begins; to close a socket ends its waits

func (w *waiters) close() { w.group.Wait() }

func (w *waiters) await(j *Joint) {
	for _, x := range []struct {
		s *side
		n news
		c bool
	}{
		{&j.client, clientIn, j.client.ready},
		{&j.client, clientOut, j.client.open},
		{&j.platform, platformIn, j.platform.ready},
		{&j.platform, platformOut, j.platform.open},
	} {
		if x.c || x.s.closed {
			continue
		}
		w.mu.Lock()
		_, already := w.waits[wait{j, x.n}]
		if !already {
			w.waits[wait{j, x.n}] = struct{}{}
			w.group.Go(func() { w.wait(wait{j, x.n}, x.s.fd) })
		}
		w.mu.Unlock()
	}
}

func (w *waiters) wait(x wait, raw syscall.RawConn) {
	events := int16(unix.POLLIN)
	until := raw.Read
	if x.n == clientOut || x.n == platformOut {
		events, until = unix.POLLOUT, raw.Write
	}
	err := until(func(fd uintptr) bool {
		p := []unix.PollFd{{Fd: int32(fd), Events: events}}
		n, err := unix.Poll(p, 0)
		return n > 0 || err != nil && err != unix.EINTR
	})
	w.mu.Lock()
	delete(w.waits, x)
	w.mu.Unlock()
	if err == nil {
		x.j.post(x.n)
	}
}

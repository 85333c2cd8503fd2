package peers

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"syscall"
)

// Ports for programs that can't be told to choose one are taken from below the range
// from which Linux takes those of outgoing connections (32768 and up), so that no
// connection of another test can sit on one between its choice and its use.
const (
	firstPort = 20000
	lastPort  = 29999
)

// Port returns a TCP port of 127.0.0.1 that belongs to the test until it ends: nobody
// listens on it, and no other test in any process of this user is given it.
func Port(t TB) int {
	t.Helper()
	dir := filepath.Join(os.TempDir(), fmt.Sprintf("mailcutover-ports-%d", os.Getuid()))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatalf("choose a port: %v", err)
	}
	for range 1000 {
		port := firstPort + rand.IntN(lastPort-firstPort+1)
		lock, err := lockPort(filepath.Join(dir, fmt.Sprint(port)))
		if err != nil {
			continue // another test's
		}
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			l.Close()
			t.Cleanup(func() { lock.Close() })
			return port
		}
		lock.Close()
	}
	t.Fatalf("choose a port: none free between %d and %d", firstPort, lastPort)
	return 0
}

// lockPort holds the port until the file is closed, at the latest by the process's end.
func lockPort(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// freeAddr is Port as an address of the loopback interface.
func freeAddr(t TB) string {
	t.Helper()
	return fmt.Sprintf("127.0.0.1:%d", Port(t))
}

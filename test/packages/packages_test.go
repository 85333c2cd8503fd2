package packages

import (
	"bytes"
	"context"
	"crypto/sha256"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"mailcutover/test/peers"
)

// build builds the program, once in a test process, without what a release leaves out.
var build = sync.OnceValues(func() (string, error) {
	return peers.Build(context.Background(), programDir, "./cmd/mailcutover", false)
})

var programDir string

func TestMain(m *testing.M) { os.Exit(peers.Main(m, &programDir, 0)) }

func program(t *testing.T) string {
	t.Helper()
	file, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// deb builds the package as tools/deb does, and returns its file.
func deb(t *testing.T, dir, version string) string {
	t.Helper()
	root, err := peers.Root()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("tools/deb", version)
	cmd.Dir = root
	// The dates are those of the last commit; a copy without one has none.
	cmd.Env = append(os.Environ(), "OUT="+dir, "BINARY="+program(t), "SOURCE_DATE_EPOCH=1893456000",
		"DPKG_DEB_COMPRESSOR_TYPE=gzip", "DPKG_DEB_COMPRESSOR_LEVEL=1")
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("tools/deb %s: %v\n%s", version, err, said.String())
	}
	return strings.TrimSpace(string(out))
}

func sum(t *testing.T, file string) [sha256.Size]byte {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return sha256.Sum256(b)
}

// The package installs, is upgraded, removed and purged by dpkg, with its scripts.
func TestPackage(t *testing.T) {
	peers.Need(t, "packages", "systemd")
	old, again, next := deb(t, t.TempDir(), "1.0"), deb(t, t.TempDir(), "1.0"), deb(t, t.TempDir(), "1.1")
	if sum(t, old) != sum(t, again) {
		t.Error("the same sources made two packages")
	}
	walk, err := filepath.Abs("testdata/walk.sh")
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("unshare", "--mount", "bash", walk, old, next).CombinedOutput()
	if err != nil || !strings.HasSuffix(string(out), "\nend\n") || strings.Contains(string(out), "FAIL") {
		t.Errorf("%v\n%s", err, out)
	}
	if n := strings.Count(string(out), "\nok "); n < 40 {
		t.Errorf("only %d things were looked at:\n%s", n, out)
	}
}

// A service manager learns when the node is ready, reads its settings again and ends, and that
// it lives in between.
func TestServiceManager(t *testing.T) {
	peers.Need(t, "systemd") // for where there is one
	dir := t.TempDir()
	settings := filepath.Join(dir, "mailcutover.yaml")
	if err := os.WriteFile(settings, []byte(`node: mx1.example
data: `+filepath.Join(dir, "data")+`
approval: none
lab: true
listeners: [{id: mx, address: "127.0.0.1:0"}]
platforms:
  - {id: exchange, outside: {hosts: ["127.0.0.1:9"]}}
  - {id: ox, outside: {hosts: ["127.0.0.1:9"]}}
routing: {postmaster: postmaster@example.org}
admin: {address: "127.0.0.1:0"}
`), 0o600); err != nil {
		t.Fatal(err)
	}
	short, err := os.MkdirTemp("", "n") // a socket's name has few characters
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(short) })
	socket := filepath.Join(short, "s")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	node := exec.Command(program(t), "serve", "--config", settings)
	node.Env = append(os.Environ(), "NOTIFY_SOCKET="+socket, "WATCHDOG_USEC=200000")
	var log bytes.Buffer
	node.Stderr = &log
	if err := node.Start(); err != nil {
		t.Fatal(err)
	}
	ended := false
	t.Cleanup(func() {
		if !ended {
			_ = node.Process.Kill()
			_ = node.Wait()
		}
		if t.Failed() {
			t.Logf("%s", log.String())
		}
	})
	// told waits for a message that begins so, and returns it.
	told := func(prefix string) string {
		t.Helper()
		_ = manager.SetReadDeadline(time.Now().Add(30 * time.Second))
		b := make([]byte, 1000)
		for {
			n, err := manager.Read(b)
			if err != nil {
				t.Fatalf("not told: %s: %v", prefix, err)
			}
			if strings.HasPrefix(string(b[:n]), prefix) {
				return string(b[:n])
			}
		}
	}
	signal := func(s syscall.Signal) {
		t.Helper()
		if err := node.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
	}
	told("READY=1\n")
	told("WATCHDOG=1\n")
	told("WATCHDOG=1\n")
	signal(syscall.SIGHUP)
	if text := told("RELOADING=1\n"); !strings.Contains(text, "\nMONOTONIC_USEC=") || strings.Contains(text, "MONOTONIC_USEC=0\n") {
		t.Errorf("%q", text)
	}
	if text := told("READY=1\n"); !strings.Contains(text, "settings read again") {
		t.Errorf("%q", text)
	}
	if err := os.WriteFile(settings, []byte("nonsense: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	signal(syscall.SIGHUP)
	told("RELOADING=1\n")
	if text := told("READY=1\n"); !strings.Contains(text, "not taken over") {
		t.Errorf("%q", text)
	}
	told("WATCHDOG=1\n")
	signal(syscall.SIGTERM)
	told("STOPPING=1\n")
	ended = true
	if err := node.Wait(); err != nil {
		t.Errorf("the node ended: %v", err)
	}
}

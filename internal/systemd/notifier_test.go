package systemd

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func environment(vars ...string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		for _, v := range vars {
			if k, value, _ := strings.Cut(v, "="); k == name {
				return value, true
			}
		}
		return "", false
	}
}

func TestNotifier(t *testing.T) {
	dir, err := os.MkdirTemp("", "n") // a socket's name is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	n, err := New(environment("NOTIFY_SOCKET="+path, "WATCHDOG_USEC=30000000", "WATCHDOG_PID=7"), 7)
	if err != nil {
		t.Fatal(err)
	}
	if n.Interval() != 15*time.Second {
		t.Errorf("interval %s", n.Interval())
	}
	for _, c := range []struct {
		tell func() error
		want string
	}{
		{func() error { return n.Ready("takes mail") }, "READY=1\nSTATUS=takes mail\n"},
		{func() error { return n.Reloading(1500 * time.Microsecond) }, "RELOADING=1\nMONOTONIC_USEC=1500\n"},
		{n.Alive, "WATCHDOG=1\n"},
		{func() error { return n.Stopping("drains") }, "STOPPING=1\nSTATUS=drains\n"},
	} {
		if err := c.tell(); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 200)
		_ = manager.SetReadDeadline(time.Now().Add(30 * time.Second))
		got, err := manager.Read(b)
		if err != nil || string(b[:got]) != c.want {
			t.Errorf("%q, %v, want %q", b[:got], err, c.want)
		}
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
	if Monotonic() < 0 {
		t.Error("a clock below 0")
	}
}

// Without a manager, or with a watchdog for another process, nothing is told and nothing fails.
func TestNobodyListens(t *testing.T) {
	n, err := New(environment("WATCHDOG_USEC=30000000"), 7)
	if err != nil || n.Ready("") != nil || n.Alive() != nil || n.Close() != nil || n.Interval() != 0 {
		t.Errorf("%+v, %v", n, err)
	}
	var none *Notifier
	if none.Alive() != nil || none.Interval() != 0 || none.Close() != nil {
		t.Error("nil talks")
	}
	for name, vars := range map[string][]string{
		"nobody there": {"NOTIFY_SOCKET=/nowhere/s"},
		"no time":      {"NOTIFY_SOCKET=/nowhere/s", "WATCHDOG_USEC=soon"},
	} {
		if n, err := New(environment(vars...), 7); err == nil || n == nil || n.Alive() != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

package deliver

import (
	"fmt"
	"net"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"mailcutover/spool"
)

// sink starts smtp-sink and returns its address.
func sink(b *testing.B) string {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	cmd := exec.Command("smtp-sink", "-u", "nobody", addr, "1000")
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
			return addr
		}
		if time.Now().After(end) {
			b.Fatal(err)
		}
	}
}

// BenchmarkReplay brings held mail of 10 KiB, for 100 mailboxes,
// from the spool into smtp-sink over 20 connections, and compares with smtp-source, which
// brings as much into the same sink over as many.
func BenchmarkReplay(b *testing.B) {
	body := "Subject: x\r\n\r\n" + strings.Repeat("0123456789abcdefghijklmnopqrstuvwxyz0123456789\r\n", 213)
	b.Run("replay", func(b *testing.B) {
		addr := sink(b)
		w := newWorld(b, b.TempDir(), time.Minute, quick, endpoint{id: "exchange", addr: addr, connections: 20})
		defer w.close()
		var writing sync.WaitGroup
		for k := range 20 {
			writing.Go(func() {
				for i := k; i < b.N; i += 20 {
					w.put(spool.StateHeld, body, i%mailboxes)
				}
			})
		}
		writing.Wait()
		b.ResetTimer()
		w.run()
		for !w.empty() {
			time.Sleep(time.Millisecond)
		}
		b.StopTimer()
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
	})
	b.Run("smtp-source", func(b *testing.B) {
		addr := sink(b)
		out, err := exec.Command("smtp-source", "-d", "-s", "20", "-l", fmt.Sprint(len(body)), "-m", fmt.Sprint(max(b.N, 20)), "-f", "a@out.example", "-t", string(address(1)), addr).CombinedOutput()
		if err != nil {
			b.Fatalf("smtp-source: %v: %s", err, out)
		}
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
	})
}

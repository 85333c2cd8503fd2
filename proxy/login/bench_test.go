package login

import (
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"
)

// BenchmarkLogin is a client's connection, its login, one line each way, and the end. Client
// and platform are in the same process.
func BenchmarkLogin(b *testing.B) {
	w := newWorld(b, nil)
	var failed atomic.Int64
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		buf := make([]byte, 64)
		for pb.Next() {
			nc, err := net.Dial("tcp", w.addr)
			if err != nil {
				b.Error(err)
				return
			}
			_ = nc.SetDeadline(time.Now().Add(patience))
			_, _ = io.WriteString(nc, "LOGIN anna s3cret\r\nping\r\n")
			n := len("hello\r\nyes\r\nexchange: ping\r\n")
			if _, err := io.ReadFull(nc, buf[:n]); err != nil {
				failed.Add(1)
			}
			_ = nc.Close()
		}
	})
	if failed.Load() > 0 {
		b.Errorf("%d logins failed", failed.Load())
	}
}

package redistable

import (
	"io"
	"net"
	"sync"
	"testing"
)

// cutter is a TCP proxy in front of a server, which can lose answers.
type cutter struct {
	addr string

	mu    sync.Mutex
	armed bool // mu
}

// startCutter starts a proxy to the server at addr.
func startCutter(t *testing.T, addr string) *cutter {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cutter{addr: l.Addr().String()}
	var wg sync.WaitGroup
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	track := func(conn net.Conn) {
		mu.Lock()
		defer mu.Unlock()
		open[conn] = true
	}
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for conn := range open {
			conn.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	wg.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", addr)
			if err != nil {
				client.Close()
				continue
			}
			track(client)
			track(server)
			wg.Go(func() {
				io.Copy(server, client)
				server.Close()
			})
			wg.Go(func() {
				c.answers(client, server)
				client.Close()
				server.Close()
			})
		}
	})
	return c
}

// answers passes answers on until one is to be lost.
func (c *cutter) answers(client, server net.Conn) {
	buf := make([]byte, 64<<10)
	for {
		n, err := server.Read(buf)
		if err != nil {
			return
		}
		c.mu.Lock()
		lose := c.armed
		c.armed = false
		c.mu.Unlock()
		if lose {
			return
		}
		if _, err := client.Write(buf[:n]); err != nil {
			return
		}
	}
}

// loseNext loses the next answer, and its connection.
func (c *cutter) loseNext() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.armed = true
}

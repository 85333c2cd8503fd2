package listen

import (
	"net"
	"sync"
)

// Listener returns l for servers that aren't this package's, such as those of HTTP: each of its
// connections takes from q until it is closed, and there are at most most at once; 0: no limit.
// Those beyond are closed as they come, without a word. Below a TLS listener it counts
// handshakes too. q may be nil.
func (q *Quota) Listener(l net.Listener, most int) net.Listener {
	return &bounded{Listener: l, quota: q, own: NewQuota(most)}
}

// bounded is a listener of Quota.Listener.
type bounded struct {
	net.Listener
	quota, own *Quota
}

func (b *bounded) Accept() (net.Conn, error) {
	for {
		nc, err := b.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if b.own.take() {
			if b.quota.take() {
				return &counted{Conn: nc, of: b}, nil
			}
			b.own.give()
		}
		_ = nc.Close()
	}
}

// counted is a connection of a bounded listener.
type counted struct {
	net.Conn
	of   *bounded
	once sync.Once
}

func (c *counted) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() {
		c.of.own.give()
		c.of.quota.give()
	})
	return err
}

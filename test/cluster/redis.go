package cluster

import (
	"io"
	"net"
	"strings"
	"time"

	"mailcutover/test/peers"
)

// askFor is how long Ask reads: a Sentinel doesn't say that it has said everything.
const askFor = 200 * time.Millisecond

// Ask returns what a server without password, or a Sentinel, answers to a command, as it
// is on the wire; empty if it doesn't answer.
func Ask(addr, command string) string {
	conn, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return ""
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(askFor)); err != nil {
		return ""
	}
	if _, err := io.WriteString(conn, command+"\r\nQUIT\r\n"); err != nil {
		return ""
	}
	text, _ := io.ReadAll(conn) // a Sentinel knows no QUIT
	return string(text)
}

// acquainted waits until the Sentinels know each other: before, they can't agree.
func (c *Cluster) acquainted(t peers.TB) {
	t.Helper()
	for _, s := range c.Sentinels {
		Until(t, "Sentinels that know each other", func() bool {
			return strings.HasPrefix(Ask(s.Addr, "SENTINEL CKQUORUM "+peers.SentinelName), "+OK 3 usable")
		})
	}
}

package listen

import (
	"context"
	"net"
	"time"
)

// Of connections whose peer says nothing: after which time it is asked whether it is there, how
// often then, and after how many questions without an answer the connection ends.
const (
	keepaliveIdle  = 15 * time.Second
	keepaliveEvery = 15 * time.Second
	keepaliveCount = 9
)

// Listen opens a TCP socket at an address, as [net.Listen] does, but for TCP alone and not
// Multipath TCP (RFC 8684): what is promised of connections is what TCP sockets do. They have
// TCP's keepalive.
func Listen(address string) (net.Listener, error) {
	c := listenConfig()
	c.SetMultipathTCP(false)
	return c.Listen(context.Background(), "tcp", address)
}

//go:build unix

package dial

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"syscall"

	"mailcutover/internal/nonblock"
)

// connectEarly is a [net.Dialer]'s ControlContext. It connects before the dialer does, which
// then finds the connection there, if the platform is near, and needn't wait; the scheduler
// isn't told of the one call that takes long, since on this host it does the platform's part
// too. What comes of it the dialer learns by its own call.
func connectEarly(_ context.Context, network, address string, raw syscall.RawConn) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil || to.Addr().Zone() != "" || to.Addr().Is4() != strings.HasSuffix(network, "4") {
		return nil
	}
	return raw.Control(func(fd uintptr) { _ = nonblock.Connect(fd, to) })
}

// keepalive is package net's, but that TCP_USER_TIMEOUT says when a peer that doesn't answer is
// given up (tcp(7)).
var keepalive = net.KeepAliveConfig{Enable: true, Count: -1}

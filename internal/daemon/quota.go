package daemon

import (
	"net"

	"mailcutover/internal/config"
	"mailcutover/internal/door"
	"mailcutover/proxy/listen"
)

// boundAPI returns the API's socket with a bound of its own, a part of what the listeners leave:
// it has to be there for people while strangers take all that they get, of the API too.
func boundAPI(socket net.Listener) net.Listener {
	n, ok := descriptors()
	if !ok {
		return socket
	}
	return door.Bound(socket, forAPI(n))
}

// forAPI returns how many of n descriptors the API's connections may take.
func forAPI(n uint64) int {
	left := int(min(n, 1<<30)) - forConnections(n)
	return max(16, left/4)
}

// boundAutoconfig returns autoconfiguration's socket, whose connections are counted with the
// listeners'. Strangers reach it, and the page, and mustn't take what mail needs: together they
// get no more than a half of it.
func (d *Daemon) boundAutoconfig(socket net.Listener) net.Listener {
	n, ok := descriptors()
	if !ok {
		return socket
	}
	return d.quota.Listener(socket, forWeb(n))
}

// boundPage returns the page's socket, counted in the same way, where strangers make way for
// those who are signed in.
func (d *Daemon) boundPage(socket net.Listener) net.Listener {
	n, ok := descriptors()
	if !ok {
		return socket
	}
	most := forWeb(n)
	return door.Bound(d.quota.Listener(socket, most+1), most) // one more, for which another one is cut
}

func forWeb(n uint64) int { return max(8, forConnections(n)/4) }

// openQuota makes what bounds the connections of all listeners together: by the descriptors that
// this process may have, of which strangers who just connect must not take the last.
func (d *Daemon) openQuota(cfg *config.Config) {
	n, ok := descriptors()
	if !ok {
		return
	}
	most := forConnections(n)
	d.quota = listen.NewQuota(most)
	if want := wantedDescriptors(cfg); want > most {
		d.logger.Warn("the descriptor limit of this process bounds the connections of all listeners together; one for mail takes one, one for logins two",
			"descriptors", n, "connections", most)
	}
}

// forConnections returns how many of n descriptors the listeners' connections may take. The others
// are for platforms, the table, the disk and the API.
func forConnections(n uint64) int {
	n = min(n, 1<<30)
	return max(2, int(n-min(n, max(128, n/20))))
}

// wantedDescriptors returns how many the listeners would take by their own limits; those
// without one want more than there are.
func wantedDescriptors(cfg *config.Config) int {
	total := 0
	add := func(connections, each int) {
		if connections == 0 {
			connections = 1 << 30
		}
		total += connections * each
	}
	for i := range cfg.Listeners {
		add(cfg.Listeners[i].Limits.Connections, 1)
	}
	for i := range cfg.Logins.Listeners {
		add(cfg.Logins.Listeners[i].Limits.Connections, 2)
	}
	return total
}

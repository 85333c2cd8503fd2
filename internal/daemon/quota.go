package daemon

import (
	"mailcutover/internal/config"
	"mailcutover/proxy/listen"
)

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

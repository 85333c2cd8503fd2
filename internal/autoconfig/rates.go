package autoconfig

import (
	"net/netip"
	"sync"
	"time"
)

// maxNets is how many client nets are counted one by one; those beyond share one count.
const maxNets = 10_000

// rates counts the requests of client nets, minute by minute.
type rates struct {
	most int // 0: no limit

	mu     sync.Mutex
	minute time.Time
	counts map[netip.Prefix]int
}

// allow counts a request, and reports whether it is within the limit.
func (r *rates) allow(client netip.Addr, now time.Time) bool {
	if r.most == 0 {
		return true
	}
	bits := 24
	if client.Is6() {
		bits = 64
	}
	n, _ := client.Prefix(bits) // the zero Prefix for no address
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.counts == nil || now.Sub(r.minute) >= time.Minute {
		r.minute, r.counts = now, make(map[netip.Prefix]int)
	}
	if _, known := r.counts[n]; !known && len(r.counts) >= maxNets {
		n = netip.Prefix{}
	}
	r.counts[n]++
	return r.counts[n] <= r.most
}

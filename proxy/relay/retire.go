package relay

import "time"

// Retire makes the pool keep no connection that nobody uses: idle ones are closed with
// QUIT before Retire returns, the others as they are given back. Transactions are opened
// as before. It is for a pool whose successor gets the new transactions: what began with
// this one can go on, and both together have no more connections than the successor may
// have and this one still uses. Close ends it.
func (p *Pool) Retire() {
	p.mu.Lock()
	p.retired = true
	idle := p.idle
	p.idle = nil
	p.open -= len(idle)
	p.grant(time.Now())
	p.mu.Unlock()
	p.quit(idle, "shutdown")
}

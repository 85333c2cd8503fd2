package login

import "mailcutover/routing"

// Decide says where a client that logs in by this name goes now, as a login would: by the forms
// of names that clients may use, and this node's right to decide. It connects to nobody. The
// error says that it can't be a name.
func (p *Proxy) Decide(name string) (routing.Decision, error) {
	c, err := p.names.parse(&Attempt{Name: name})
	if err != nil {
		return routing.Decision{}, err
	}
	return p.decide(c).d, nil
}

package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"mailcutover/internal/config"
	"mailcutover/proxy/login"
	"mailcutover/proxy/probe"
	"mailcutover/rollback/canary"
	"mailcutover/rollback/locate"
	"mailcutover/rollback/mailstore"
	"mailcutover/routing"
)

// canaryProtocols are those by which a canary logs in: those that this node listens for and the platform takes, or
// of them those that the canary is restricted to.
func canaryProtocols(cfg *config.Config, one *config.Canary, id routing.PlatformID) (all []string) {
	at := slices.IndexFunc(cfg.Platforms, func(p config.Platform) bool { return p.ID == id })
	if at < 0 {
		return nil
	}
	for _, p := range config.LoginProtocols {
		if len(one.Protocols) > 0 && !slices.Contains(one.Protocols, p) || loginListenerFor(cfg, p) == nil || cfg.Platforms[at].Login(p) == nil {
			continue
		}
		all = append(all, string(p))
	}
	return all
}

// loginListenerFor returns the first listener for a protocol; nil: there is none.
func loginListenerFor(cfg *config.Config, p config.LoginProtocol) *config.LoginListener {
	i := slices.IndexFunc(cfg.Logins.Listeners, func(l config.LoginListener) bool { return l.Protocol == p })
	if i < 0 {
		return nil
	}
	return &cfg.Logins.Listeners[i]
}

// logIn logs in by a protocol, through the first listener for it, and by IMAP looks for a message.
func (c canaries) logIn(ctx context.Context, cfg *config.Config, protocol config.LoginProtocol, who probe.Account, id string) (v canary.Visit, err error) {
	l := loginListenerFor(cfg, protocol)
	if l == nil || c.d.loginProxy == nil {
		return v, errNoListener
	}
	e := probe.Entrance{Addr: c.d.Addr(l.ID), Implicit: l.TLS.Mode == config.ListenerTLSImplicit, Helo: cfg.Node}
	if e.Addr == nil {
		return v, errNoListener
	}
	if l.TLS.Mode != config.ListenerTLSNone {
		e.TLS = c.ours(l.ID)
	}
	e.Header = behind(l.ProxyNets, e.Addr)
	logged := func(client netip.AddrPort) { v.Platform = c.at(protocol, client) }
	if protocol != config.LoginIMAP {
		return v, e.LogIn(ctx, dialogueOf(protocol), who, logged)
	}
	left, err := e.Login(ctx, who, logged, id, looking(ctx, cfg))
	switch {
	case errors.Is(err, probe.ErrNotThere):
		v.Message = canary.Sight{Looked: true, Text: err.Error()}
		return v, nil
	case err != nil || id == "":
		return v, err
	}
	v.Message = canary.Sight{Looked: true, Found: true, Text: "it was deleted again"}
	if left != "" {
		v.Message.Text = "it stays there: " + left
	}
	return v, nil
}

// at is the platform at which the session of a client of ours is.
func (c canaries) at(protocol config.LoginProtocol, client netip.AddrPort) routing.PlatformID {
	sessions, _ := c.d.loginProxy.Sessions(login.Filter{Protocol: string(protocol), Address: client.Addr().Unmap()}, 0)
	for _, s := range sessions {
		if s.Client.Port() == client.Port() {
			return s.Platform
		}
	}
	return ""
}

// looking is how long a message may be looked for: not so long that there is no time left to say that it isn't there.
func looking(ctx context.Context, cfg *config.Config) time.Duration {
	left := cfg.Operations.CanaryWait
	if end, ok := ctx.Deadline(); ok {
		left = time.Until(end)
	}
	return left * 3 / 4
}

// lookAgain is the time between two looks into a mailbox on its platform.
const lookAgain = time.Second

// look looks for a message in the canary's mailbox as recalls do, until it is there or time is over. It stays there:
// with the rights of an administrator nothing is deleted.
func (c canaries) look(ctx context.Context, store mailstore.Store, t *canary.Trial, id string, since time.Time) (s canary.Sight, err error) {
	state := c.d.replica.State()
	a, _ := state.Agency(t.Agency)
	address, err := routing.ParseAddress(t.Address)
	if err != nil {
		return s, err
	}
	m := state.Mapping(t.Agency)
	if m == nil {
		return s, fmt.Errorf("agency %s has no mapping on this node", t.Agency)
	}
	row, ok := m.Mailbox(state.DecideAddress(address, c.d.config.Load().Routing.Separator).Mailbox)
	if !ok {
		return s, fmt.Errorf("the table has no mailbox of agency %s with the address %s", t.Agency, t.Address)
	}
	side := mailstore.Source
	if t.Platform == a.Target {
		side = mailstore.Target
	}
	session, err := store.Open(ctx, row, side)
	if err != nil {
		return s, err
	}
	defer func() { _ = session.Close() }() // nothing was changed
	until := time.Now().Add(looking(ctx, c.d.config.Load()))
	for {
		found, err := locate.Find(ctx, session, locate.Sought{MessageID: id, Since: since})
		if err != nil {
			return s, err
		}
		s.Looked = true
		for i := range found.Places {
			if found.Places[i].Role == mailstore.Inbox {
				return canary.Sight{Looked: true, Found: true, Text: "it stays there: no login by IMAP is set, with which it could be deleted"}, nil
			}
			s.Text = fmt.Sprintf("it is in a folder of the kind %s", found.Places[i].Role)
		}
		if time.Now().After(until) {
			return s, nil
		}
		select {
		case <-time.After(lookAgain):
		case <-ctx.Done():
			return s, context.Cause(ctx)
		}
	}
}

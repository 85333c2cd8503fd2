package daemon

import (
	"context"
	"errors"
	"fmt"

	"mailcutover/internal/config"
	"mailcutover/mail"
	"mailcutover/proxy/dial"
	"mailcutover/proxy/probe"
	"mailcutover/proxy/relay"
	"mailcutover/rollback/operation"
	"mailcutover/routing"
)

// prober tries platforms by the configuration in force. It implements operation.Prober.
type prober struct{ d *Daemon }

// askedMailboxes is how many mailboxes of an agency a platform is asked for that has no
// mailbox for probes.
const askedMailboxes = 5

// Probe implements operation.Prober.
func (p prober) Probe(ctx context.Context, agency routing.AgencyID, id routing.PlatformID, side operation.Side) (string, error) {
	origin := mail.OriginOutside
	if side == operation.SideInside {
		origin = mail.OriginInside
	}
	pool := p.pool(id, origin)
	switch {
	case pool == nil:
		return "", fmt.Errorf("platform %s isn't configured on this node", id)
	case origin == mail.OriginInside && pool == p.pool(id, mail.OriginOutside):
		return "the endpoint is the one for mail from outside", nil
	}
	whose := "the mailbox for probes"
	var to []mail.Path
	c := p.settings(id)
	if c != nil && c.Probe != nil && c.Probe.Address != "" {
		path, err := mail.ParsePath(c.Probe.Address, true)
		if err != nil {
			return "", err
		}
		to = append(to, path)
	} else {
		var err error
		if to, err = p.some(agency, id); err != nil {
			return "", err
		}
		whose = fmt.Sprintf("%d mailboxes of %s", len(to), agency)
	}
	if len(to) == 0 {
		if err := pool.Probe(ctx); err != nil {
			return "", err
		}
		return "it answers; no mailbox to ask it for", nil
	}
	host, err := probe.Recipients(ctx, pool, to)
	switch {
	case errors.Is(err, probe.ErrRefused) && (c == nil || c.Probe == nil || c.Probe.Address == ""):
		return "", fmt.Errorf("%s: %w: %w", host, operation.ErrMailbox, err)
	case err != nil:
		return "", err
	}
	return fmt.Sprintf("%s takes mail for %s", host, whose), nil
}

// pool is the way to a platform for mail of an origin; nil: there is none.
func (p prober) pool(id routing.PlatformID, origin mail.Origin) *relay.Pool {
	all := p.d.platforms.Load()
	if all == nil {
		return nil
	}
	for i := range all.list {
		if all.list[i].ID == id {
			return all.list[i].Pool(origin)
		}
	}
	return nil
}

// settings are a platform's; nil: it has none.
func (p prober) settings(id routing.PlatformID) *config.Platform {
	cfg := p.d.config.Load()
	for i := range cfg.Platforms {
		if cfg.Platforms[i].ID == id {
			return &cfg.Platforms[i]
		}
	}
	return nil
}

// some are addresses of a few of the agency's mailboxes at a platform, spread over all.
func (p prober) some(agency routing.AgencyID, id routing.PlatformID) ([]mail.Path, error) {
	state := p.d.replica.State()
	a, known := state.Agency(agency)
	m := state.Mapping(agency)
	switch {
	case !known:
		return nil, fmt.Errorf("no agency %q in the table", agency)
	case a.Mapping.IsZero():
		return nil, nil
	case m == nil:
		return nil, fmt.Errorf("mailboxes of agency %s: its mapping is not on this node", agency)
	}
	every := max(1, m.Len()/askedMailboxes)
	var to []mail.Path
	n := 0
	for row := range m.Rows() {
		if n++; (n-1)%every != 0 {
			continue
		}
		path, err := mail.ParsePath(string(row.At(id == a.Target).Address), true)
		if err != nil {
			return nil, fmt.Errorf("mailbox %s: %w", row.Mailbox, err)
		}
		if to = append(to, path); len(to) == askedMailboxes {
			break
		}
	}
	return to, nil
}

// ProbeLogin implements operation.Prober.
func (p prober) ProbeLogin(ctx context.Context, id routing.PlatformID) (string, error) {
	c := p.settings(id)
	if c == nil || c.IMAP == nil {
		return "", fmt.Errorf("no login by IMAP at %s is %w", id, operation.ErrNotConfigured)
	}
	if c.Probe == nil || c.Probe.Login == "" {
		return "", fmt.Errorf("no mailbox for a probe login at %s is %w: whether it takes logins is not known", id, operation.ErrNotConfigured)
	}
	e, err := loginEndpoint(id, config.LoginIMAP, c.IMAP)
	if err != nil {
		return "", err
	}
	dialer, err := dial.New(e.Way, dial.Options{}) // of its own: it leaves no host alone
	if err != nil {
		return "", err
	}
	host, err := probe.Login(ctx, dialer, c.IMAP.ClientIdentity == config.LoginIdentityProxyV2, probe.Account{Login: c.Probe.Login, Password: c.Probe.Password.Reveal()})
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s let %s in, opened its INBOX, and doesn't announce UNAUTHENTICATE", host, c.Probe.Login), nil
}

package config

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"mailcutover/mail"
	"mailcutover/routing"
)

// Probe is a mailbox at a platform that belongs to no agency: the checks of a plan ask whether
// mail for it would be taken, and log in to it by IMAP. Nothing is delivered to it.
type Probe struct {
	Address  string `config:"address"` // at this platform; empty: some mailboxes of the agency are asked for instead
	Login    string `config:"login"`   // empty: no login is tried
	Password Secret `config:"password"`
}

// Canary is a mailbox of an agency that gets a message after each of its switches, and is
// logged in to.
type Canary struct {
	Agency   routing.AgencyID `config:"agency"`
	Address  string           `config:"address"` // of the mailbox, as the table has it; empty: no message is sent
	Login    string           `config:"login"`   // as a client of ours gives it; empty: no login is tried
	Password Secret           `config:"password"`

	// Protocols are those by which it logs in; empty: all that this node has a listener for and the platform
	// an endpoint.
	Protocols []LoginProtocol `config:"protocols"`
}

// DefaultCanaryWait is how long a canary may take after a switch.
const DefaultCanaryWait = time.Minute

// DefaultCanaryEvery is how often a canary is tried between switches.
const DefaultCanaryEvery = 30 * time.Minute

// CanaryReact is what a canary that fails leads to.
type CanaryReact string

const (
	CanaryAlarm    CanaryReact = "alarm"
	CanaryFreeze   CanaryReact = "freeze"   // besides, no operation of the agency begins until somebody lifts the freeze
	CanaryRollback CanaryReact = "rollback" // besides, the agency is rolled back, if that stood in its cutover's plan
)

func (CanaryReact) words() []string { return []string{"alarm", "freeze", "rollback"} }

// longestCanary bounds how long the end of an operation may wait for its canary.
const longestCanary = 10 * time.Minute

// probes looks at what plans and operations try.
func (c *checker) probes(cfg *Config) {
	ids := platformIDs(cfg.Platforms)
	for i := range cfg.Platforms {
		p, section := &cfg.Platforms[i], itemKey("platforms", ids, i)
		if p.Probe == nil || c.bad[section] {
			continue
		}
		key := section + ".probe"
		if p.Probe.Address == "" && p.Probe.Login == "" {
			c.add(Problem{Key: key, Want: "an address or a login, or no probe"})
		}
		c.mailAddress(key+".address", p.Probe.Address)
		c.account(key, p.Probe.Login, p.Probe.Password)
		if p.Probe.Login != "" && p.IMAP == nil {
			c.add(Problem{Key: key + ".login", Value: show(p.Probe.Login), Want: "imap beside it", Hint: "the login is tried by IMAP"}, section+".imap")
		}
	}
	o := &cfg.Operations
	if o.CanaryReact == CanaryRollback && len(o.Canaries) == 0 {
		c.add(Problem{Key: "operations.canary_react", Value: string(o.CanaryReact), Want: "some operations.canaries beside it"}, "operations.canaries")
	}
	if o.CanaryWait <= 0 || o.CanaryWait > longestCanary {
		c.add(Problem{Key: "operations.canary_wait", Value: shortDuration(o.CanaryWait), Want: "more than 0s, and " + shortDuration(longestCanary) + " at most"})
	}
	if o.CanaryEvery != 0 && o.CanaryEvery < o.CanaryWait {
		c.add(Problem{Key: "operations.canary_every", Value: shortDuration(o.CanaryEvery), Want: "operations.canary_wait, " + shortDuration(o.CanaryWait) + ", or more; or 0 for only after a switch"}, "operations.canary_wait")
	}
	c.atLeast("operations.canary_failures", o.CanaryFailures, 1, "")
	agencies := make([]string, len(o.Canaries))
	for i := range o.Canaries {
		agencies[i] = string(o.Canaries[i].Agency)
	}
	for i := range o.Canaries {
		one, key := &o.Canaries[i], itemKey("operations.canaries", agencies, i)
		if c.bad[key] {
			continue
		}
		c.id(key+".agency", agencies, i, "canary")
		if one.Address == "" && one.Login == "" {
			c.add(Problem{Key: key, Want: "an address or a login"})
		}
		c.mailAddress(key+".address", one.Address)
		c.account(key, one.Login, one.Password)
		c.canaryProtocols(key, one)
		if one.Address != "" && len(cfg.Listeners) == 0 {
			c.add(Problem{Key: key + ".address", Value: show(one.Address), Want: "a listener for mail in listeners", Hint: "the canary is sent through this node"}, "listeners")
		}
	}
}

// canaryProtocols looks at how a canary logs in: there has to be a listener for each protocol that it
// names, and for one at all if it names none.
func (c *checker) canaryProtocols(key string, one *Canary) {
	listens := func(p LoginProtocol) bool {
		return slices.ContainsFunc(c.cfg.Logins.Listeners, func(l LoginListener) bool { return l.Protocol == p })
	}
	switch {
	case one.Login == "" && len(one.Protocols) > 0:
		c.add(Problem{Key: key + ".login", Want: "a login beside protocols"}, key+".protocols")
	case one.Login != "" && len(c.cfg.Logins.Listeners) == 0:
		c.add(Problem{Key: key + ".login", Value: show(one.Login), Want: "a listener in logins.listeners", Hint: "the canary logs in through this node"}, "logins.listeners")
	}
	for i, p := range one.Protocols {
		at := index(key+".protocols", i)
		switch {
		case c.bad[at] || one.Login == "":
		case slices.Contains(one.Protocols[:i], p):
			c.add(Problem{Key: at, Value: string(p), Want: "each protocol once"})
		case !listens(p):
			c.add(Problem{Key: at, Value: string(p), Want: fmt.Sprintf("a listener for %s in logins.listeners", p), Hint: "the canary logs in through this node"}, "logins.listeners")
		}
	}
}

// mailAddress looks at an address that may be left out.
func (c *checker) mailAddress(key, address string) {
	if address == "" {
		return
	}
	if _, err := mail.ParsePath(address, true); err != nil || !strings.Contains(address, "@") {
		c.add(Problem{Key: key, Value: show(address), Want: "an address, such as probe@example.org"})
	}
}

// account looks at a login and its password: both, or none.
func (c *checker) account(section, login string, password Secret) {
	switch {
	case login != "" && !password.IsSet():
		c.add(Problem{Key: section + ".password_file", Want: fmt.Sprintf("the file with the password of %s", login), Hint: "or password_env"}, section+".login", section+".password_env")
	case login == "" && password.IsSet():
		c.add(Problem{Key: section + ".login", Want: "the login that the password belongs to"}, section+".password_file", section+".password_env")
	}
}

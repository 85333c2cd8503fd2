package config

import (
	"iter"
	"strconv"
	"time"

	"mailcutover/rollback/hook"
)

// All yields the hooks that there are, with their kinds.
func (h *Hooks) All() iter.Seq2[hook.Kind, *Hook] {
	return func(yield func(hook.Kind, *Hook) bool) {
		for _, one := range []struct {
			kind hook.Kind
			hook *Hook
		}{{hook.Close, h.Close}, {hook.ForwardOn, h.ForwardOn}, {hook.ForwardOff, h.ForwardOff}, {hook.Open, h.Open}} {
			if one.hook != nil && !yield(one.kind, one.hook) {
				return
			}
		}
	}
}

// Hook returns the platform's hook of a kind, ready to be called; nil: there is none.
func (p *Platform) Hook(kind hook.Kind) *hook.Hook {
	for k, h := range p.Hooks.All() {
		if k == kind {
			return &hook.Hook{
				Platform: p.ID, Kind: kind, Command: h.Command, URL: h.URL, Token: h.Token.Reveal(),
				Timeout: h.Timeout, Attempts: h.Attempts, Pause: h.Pause,
			}
		}
	}
	return nil
}

// hookKeys are the keys of the kinds of hooks.
var hookKeys = map[hook.Kind]string{hook.Close: "close", hook.Open: "open", hook.ForwardOn: "forward_on", hook.ForwardOff: "forward_off"}

// mostAttempts and longestPause bound how long an agency may be closed by a hook that fails.
const (
	mostAttempts = 20
	longestPause = 5 * time.Minute
)

func (c *checker) hooks(ps []Platform) {
	ids := platformIDs(ps)
	for i := range ps {
		p, section := &ps[i], itemKey("platforms", ids, i)
		if c.bad[section] {
			continue
		}
		for kind, h := range p.Hooks.All() {
			key := section + ".hooks." + hookKeys[kind]
			c.positive(key+".timeout", h.Timeout)
			if h.Attempts < 1 || h.Attempts > mostAttempts {
				c.add(Problem{Key: key + ".attempts", Value: strconv.Itoa(h.Attempts), Want: "1 to " + strconv.Itoa(mostAttempts)})
			}
			if h.Pause <= 0 || h.Pause > longestPause {
				c.add(Problem{Key: key + ".pause", Value: shortDuration(h.Pause), Want: "more than 0s, and " + shortDuration(longestPause) + " at most"})
			}
			if h.Token.IsSet() && h.URL == "" {
				c.add(Problem{Key: key + ".token_file", Want: "url beside it, or no token", Hint: "a command gets no token"}, key+".token", key+".url")
			}
			if err := p.Hook(kind).Check(); err != nil {
				c.add(Problem{Key: key, Want: "a command or a URL that can be called", Hint: err.Error()}, key+".command", key+".url")
			}
		}
		if (p.Hooks.Close == nil) != (p.Hooks.Open == nil) {
			c.warn(Problem{Key: section + ".hooks", Want: "close and open, both or none", Hint: "what one of them did, only the other takes back: when an operation is aborted, and when an agency comes back"})
		}
		if (p.Hooks.ForwardOn == nil) != (p.Hooks.ForwardOff == nil) {
			c.warn(Problem{Key: section + ".hooks", Want: "forward_on and forward_off, both or none", Hint: "what one of them did, only the other takes back"})
		}
	}
}

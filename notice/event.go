package notice

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"mailcutover/routing"
)

// SchemaVersion is that of [Event]. It grows when a field goes or changes its meaning; new
// types and new data don't change it.
const SchemaVersion = 1

// Event is one thing that happened, as CloudEvents 1.0 in JSON
// (https://github.com/cloudevents/spec, section 3 of its JSON format). Attributes
// beyond CloudEvents' own are extensions.
type Event struct {
	SpecVersion     string    `json:"specversion"` // of CloudEvents
	ID              string    `json:"id"`          // the same on every node, and each time it is sent
	Source          string    `json:"source"`      // /mailcutover/INSTALLATION, with /NODE of an event that one node alone knows
	Type            Type      `json:"type"`
	Subject         string    `json:"subject"` // what it is about, such as agency/health
	Time            time.Time `json:"time"`    // by the table's clock; of an alarm by the node's
	DataContentType string    `json:"datacontenttype"`
	SchemaVersion   int       `json:"schemaversion"`
	Severity        Severity  `json:"severity"`

	Agency    string `json:"agency,omitempty"`    // the first, of several
	Node      string `json:"node,omitempty"`      // that it is about, or that raised the alarm
	Operation string `json:"operation,omitempty"` // its id

	Data map[string]string `json:"data"` // what the type lists, as text

	// Position is where in the table's life it happened; the zero one of an event that isn't
	// in the table. It isn't sent.
	Position Position `json:"-"`
}

// Position is a moment in the table's life: terms first, then revisions.
type Position struct {
	Term     uint32           `json:"term"`
	Revision routing.Revision `json:"revision"`
}

// Compare returns -1, 0 or 1: p is before, at or after o.
func (p Position) Compare(o Position) int {
	return cmp.Or(cmp.Compare(p.Term, o.Term), cmp.Compare(p.Revision, o.Revision))
}

// Agencies returns all agencies that the event is about.
func (e *Event) Agencies() []string {
	if all := strings.Fields(e.Data["agencies"]); len(all) > 0 {
		return all
	}
	if e.Agency == "" {
		return nil
	}
	return []string{e.Agency}
}

// Filter says which events somebody wants. The zero Filter wants all.
type Filter struct {
	Types    []string // patterns of types, such as operation.* or *; none: all
	Agencies []string // events of these agencies only, and of none else; none: all, and those of no agency
}

// Wants reports whether f wants e. A test is wanted by everybody.
func (f *Filter) Wants(e *Event) bool {
	if e.Type == Test {
		return true
	}
	typed := len(f.Types) == 0 || slices.ContainsFunc(f.Types, func(pattern string) bool {
		ok, err := path.Match(pattern, string(e.Type))
		return ok && err == nil
	})
	if !typed || len(f.Agencies) == 0 {
		return typed
	}
	return slices.ContainsFunc(e.Agencies(), func(id string) bool { return slices.Contains(f.Agencies, id) })
}

// Matches reports whether a pattern of a [Filter] is well formed and names at least one type.
func Matches(pattern string) bool {
	return slices.ContainsFunc(Types(), func(t About) bool {
		ok, err := path.Match(pattern, string(t.Type))
		return ok && err == nil
	})
}

// identify returns the ID of an event: a digest of where and what.
func identify(parts ...any) string {
	h := sha256.New()
	h.Write([]byte("mailcutover event 1\n"))
	e := json.NewEncoder(h)
	for _, p := range parts {
		_ = e.Encode(p) // strings, numbers and maps of strings, of which none fails; keys are sorted
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// newEvent returns an event with what all have in common.
func newEvent(source string, t Type, subject string, at time.Time, data map[string]string) Event {
	e := Event{
		SpecVersion: "1.0", Source: source, Type: t, Subject: subject, Time: at.UTC(), DataContentType: "application/json", SchemaVersion: SchemaVersion,
		Severity: t.about().Severity, Data: maps.Clone(data),
	}
	if e.Data == nil {
		e.Data = map[string]string{}
	}
	e.Agency, e.Node, e.Operation = e.Data["agency"], e.Data["node"], e.Data["operation"]
	delete(e.Data, "agency")
	delete(e.Data, "node")
	delete(e.Data, "operation")
	return e
}

// Source returns the source of an installation's events; node is empty, or the one that
// alone knows of the event.
func Source(installation, node string) string {
	if node == "" {
		return "/mailcutover/" + installation
	}
	return "/mailcutover/" + installation + "/" + node
}

// NewAlarm returns the event that an alarm of a node was raised, or cleared. since is when it
// was raised first.
func NewAlarm(installation, node string, t Type, key, text string, since, at time.Time) Event {
	e := newEvent(Source(installation, node), t, "alarm/"+key, at, map[string]string{
		"node": node, "alarm": key, "text": text, "since": since.UTC().Format(time.RFC3339),
	})
	e.ID = identify(node, string(t), key, since.UnixNano())
	return e
}

// NewNode returns the event that a node has stopped, is missing or is seen again, which is in no
// change of the table. It is the same from whatever node tells it: counter is that of the node's last lease before.
func NewNode(installation, node string, t Type, instance, build, counter string, at time.Time) Event {
	e := newEvent(Source(installation, ""), t, nodeKey+node, at, map[string]string{"node": node, "instance": instance, "build": build})
	e.ID = identify(node, string(t), instance, counter)
	return e
}

// NewStart returns the event that a node has started, as it says itself.
func NewStart(installation, node, build string, at time.Time) Event {
	e := newEvent(Source(installation, node), NodeStarted, nodeKey+node, at, map[string]string{"node": node, "build": build})
	e.ID = identify(node, string(NodeStarted), at.UnixNano())
	return e
}

// Expired returns the event that a proposal's time is over at that of the event, and the proposal's id, of
// facts under a key; ok is false if they aren't of a proposal that is open until then.
func Expired(installation, key string, f Facts) (e Event, id string, ok bool) {
	id, ok = strings.CutPrefix(key, proposalKey)
	if !ok || f["end"] != "" {
		return e, id, false
	}
	at, err := time.Parse(time.RFC3339, f["expires"])
	if err != nil {
		return e, id, false
	}
	data := map[string]string{}
	for _, key := range append([]string{"agency", "node"}, proposalData...) {
		if f[key] != "" {
			data[key] = f[key]
		}
	}
	e = newEvent(Source(installation, ""), ProposalExpired, key, at, data)
	e.ID = identify(key, string(ProposalExpired), f["expires"])
	return e, id, true
}

// NewTest returns an event that says only that somebody tries whether it arrives.
func NewTest(installation, node, id, who, reason string, at time.Time) Event {
	e := newEvent(Source(installation, node), Test, "notice", at, map[string]string{"node": node, "who": who, "reason": reason})
	e.ID = identify(node, string(Test), id)
	return e
}

// ErrRejected is wrapped by the errors of receivers that refuse an event for what is in it,
// so that later attempts are of little use.
var ErrRejected = errors.New("the receiver refuses it")

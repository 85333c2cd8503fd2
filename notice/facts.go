package notice

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	"mailcutover/approval"
	"mailcutover/rollback/operation"
	"mailcutover/routing"
)

// Facts are what events need of one record of the table, as text. Nil: there is no such
// record.
type Facts map[string]string

// Record is a record of the table by the key under which its facts are kept, such as
// agency/health or proposal/ID.
type Record struct {
	Key      string
	Facts    Facts            // nil: it was removed
	Revision routing.Revision // of its last change
}

// Keys of records begin with these words.
const (
	agencyKey    = "agency/"
	freezeKey    = "freeze/"
	operationKey = "operation/"
	nodeKey      = "node/"
	alarmKey     = "alarm/" // of this node, not of the table

	// LeaseKey and ExpiredKey begin the keys under which a node keeps what it has seen by itself: how other
	// nodes stand, by name, and that a proposal's time is over, by its id.
	LeaseKey   = "lease/"
	ExpiredKey = "expired/"

	// The documents' own prefixes.
	proposalKey = "proposal/"
	listKey     = "list/"
	recallKey   = "recall/"
	shareKey    = "recall-part/"
	verifyKey   = "verify/"
	stopKey     = "plan/stop"
)

// Records returns the facts of all records that an update sets and that events can come from.
func Records(u *routing.Update) []Record {
	var all []Record
	add := func(key string, at routing.Revision, f Facts) {
		all = append(all, Record{Key: key, Facts: f, Revision: at})
	}
	for i := range u.Agencies {
		add(agencyKey+string(u.Agencies[i].ID), u.Agencies[i].Revision, agencyFacts(&u.Agencies[i]))
	}
	for _, f := range u.Freezes {
		if f.Removed {
			add(freezeKey+string(f.Agency), f.Revision, nil)
			continue
		}
		add(freezeKey+string(f.Agency), f.Revision, clean(Facts{"agency": string(f.Agency), "who": f.Who, "reason": f.Reason}))
	}
	for i := range u.Operations {
		add(operationKey+string(u.Operations[i].ID), u.Operations[i].Revision, operationFacts(&u.Operations[i]))
	}
	for i := range u.Members {
		add(nodeKey+string(u.Members[i].Node), u.Members[i].Revision, memberFacts(&u.Members[i]))
	}
	for i := range u.Documents {
		d := &u.Documents[i]
		read := documentFacts(d.Key)
		if read == nil {
			continue
		}
		if d.Removed {
			add(d.Key, d.Revision, nil)
		} else if f := read(d); f != nil {
			add(d.Key, d.Revision, f)
		}
	}
	return all
}

// Vanished returns what it means that a whole reading of the table doesn't show records
// that were known, by their keys. Agencies are never removed, and of operations that ended
// the table shows the last ones only: neither has gone for this reason.
func Vanished(known, shown map[string]bool) []Record {
	var all []Record
	for key := range known {
		kind, _, _ := strings.Cut(key, "/")
		if kind += "/"; !shown[key] && kind != agencyKey && kind != operationKey && kind != alarmKey && kind != LeaseKey && kind != ExpiredKey {
			all = append(all, Record{Key: key})
		}
	}
	slices.SortFunc(all, func(a, b Record) int { return strings.Compare(a.Key, b.Key) })
	return all
}

// clean leaves out what is empty.
func clean(f Facts) Facts {
	for key, value := range f {
		if value == "" {
			delete(f, key)
		}
	}
	return f
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return ""
}

func number[N int | int64](n N) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatInt(int64(n), 10)
}

func agencyFacts(a *routing.Agency) Facts {
	f := Facts{
		"agency": string(a.ID), "phase": a.Phase.String(), "platform": string(a.Platform()), "open": yes(a.Open()), "epoch": a.Epoch.String(),
		"locked": yes(a.Locked), "finalised": yes(a.Finalised), "tightness": a.Tightness.String(), "operation": string(a.Operation), "unconfirmed": string(a.Unconfirmed),
	}
	if !a.Mapping.IsZero() {
		f["mapping"] = a.Mapping.String()
	}
	return clean(f)
}

func operationFacts(rec *routing.Operation) Facts {
	f := Facts{
		"operation": string(rec.ID), "kind": rec.Kind, "agency": string(rec.Agency), "step": rec.Step, "runner": string(rec.Runner), "emergency": yes(rec.Emergency),
		"ended": yes(rec.Ended), "who": rec.Who, "reason": rec.Reason,
	}
	ids := make([]string, len(rec.Agencies))
	for i, id := range rec.Agencies {
		ids[i] = string(id)
	}
	f["agencies"] = strings.Join(ids, " ")
	op, err := operation.FromRecord(rec)
	if err != nil {
		return clean(f) // what the fields say is enough
	}
	f["error"] = op.Error
	if s := op.ClosedFor().Seconds(); s > 0 {
		f["closed_seconds"] = strconv.FormatFloat(s, 'f', 3, 64)
	}
	var waits, undo, failed []string
	for i := range op.Hooks {
		h := &op.Hooks[i]
		switch {
		case h.External && h.Status == operation.HookStarted:
			waits = append(waits, h.Name)
		case h.Status == operation.HookUndoFailed:
			undo = append(undo, h.Name)
		}
	}
	for i := range op.Canaries {
		if !op.Canaries[i].OK {
			failed = append(failed, string(op.Canaries[i].Agency))
		}
	}
	f["waits_for"], f["undo"], f["canaries_failed"] = strings.Join(waits, " "), strings.Join(undo, " "), strings.Join(failed, " ")
	return clean(f)
}

func memberFacts(m *routing.Member) Facts {
	return clean(Facts{
		"node": string(m.Node), "instance": string(m.Instance), "build": m.Build, "draining": yes(m.Draining), "evicted": yes(m.Evicted),
		"attested": yes(m.Attested != "" && m.Attested == m.Instance), "unconfirmed": string(m.Unconfirmed),
	})
}

// documentFacts returns what reads the facts of documents with a key; nil: they make no
// events. What it returns gives nil for a document that it can't read.
func documentFacts(key string) func(*routing.Document) Facts {
	switch {
	case strings.HasPrefix(key, proposalKey):
		return proposalFacts
	case strings.HasPrefix(key, listKey) && strings.HasSuffix(key, "/000"): // the head, which alone changes
		return listFacts
	case strings.HasPrefix(key, recallKey):
		return recallFacts
	case strings.HasPrefix(key, shareKey):
		return shareFacts
	case strings.HasPrefix(key, verifyKey):
		return verifyFacts
	case key == stopKey:
		return stopFacts
	}
	return nil
}

func proposalFacts(d *routing.Document) Facts {
	var p approval.Proposal
	if json.Unmarshal([]byte(d.Text), &p) != nil {
		return nil
	}
	return clean(Facts{
		"proposal": p.ID, "kind": p.Kind, "agency": string(p.Agency), "node": string(p.Node), "approvals": strconv.Itoa(len(p.Approvals)), "needed": strconv.Itoa(p.Needed),
		"expires": p.Expires.UTC().Format(time.RFC3339), "end": string(p.End), "why": p.Why, "operation": string(p.Operation),
	})
}

// listFacts reads the head of a list, as package identity/register keeps it. Addresses and
// accounts are not in it.
func listFacts(d *routing.Document) Facts {
	var h struct {
		ID       string           `json:"id"`
		Agency   routing.AgencyID `json:"agency"`
		Digest   routing.Digest   `json:"digest"`
		Rows     int              `json:"rows"`
		Standing string           `json:"standing"`
	}
	if json.Unmarshal([]byte(d.Text), &h) != nil {
		return nil
	}
	return clean(Facts{"list": h.ID, "agency": string(h.Agency), "digest": h.Digest.String(), "rows": strconv.Itoa(h.Rows), "standing": h.Standing})
}

// recallFacts reads a run, as package rollback/recall/desk keeps it.
func recallFacts(d *routing.Document) Facts {
	var r struct {
		ID        string          `json:"id"`
		Kind      string          `json:"kind"`
		Agency    string          `json:"agency"`
		From      string          `json:"from"`
		To        string          `json:"to"`
		Operation string          `json:"operation"`
		Ended     json.RawMessage `json:"ended"`
		Accepted  json.RawMessage `json:"accepted"`
	}
	if json.Unmarshal([]byte(d.Text), &r) != nil {
		return nil
	}
	return clean(Facts{
		"recall": r.ID, "kind": r.Kind, "agency": r.Agency, "operation": r.Operation, "from": r.From, "to": r.To,
		"ended": yes(r.Ended != nil), "accepted": yes(r.Accepted != nil),
	})
}

// shareFacts reads what a node says of its share of a run.
func shareFacts(d *routing.Document) Facts {
	var p struct {
		Node   string    `json:"node"`
		Round  int       `json:"round"`
		Ended  time.Time `json:"ended"`
		Totals struct {
			Mailboxes     int `json:"mailboxes"`
			Aside         int `json:"aside"`
			Delivered     int `json:"delivered"`
			DeliveredBack int `json:"delivered_back"`
			NotBack       int `json:"not_back"`
		} `json:"totals"`
	}
	if json.Unmarshal([]byte(d.Text), &p) != nil {
		return nil
	}
	id, _, _ := strings.Cut(strings.TrimPrefix(d.Key, shareKey), "/")
	return clean(Facts{
		"recall": id, "node": p.Node, "round": number(p.Round), "time": p.Ended.UTC().Format(time.RFC3339Nano),
		"delivered": number(p.Totals.Delivered), "back": number(p.Totals.DeliveredBack), "not_back": strconv.Itoa(p.Totals.NotBack), "mailboxes": number(p.Totals.Mailboxes), "aside": number(p.Totals.Aside),
	})
}

// verifyFacts reads an agency's record of comparisons, as package rollback/verify/desk keeps it.
func verifyFacts(d *routing.Document) Facts {
	var r struct {
		Running *struct {
			Run   string `json:"run"`
			Mode  string `json:"mode"`
			Cause string `json:"cause"`
		} `json:"running"`
		Last *struct {
			Run       string         `json:"run"`
			Mode      string         `json:"mode"`
			Cause     string         `json:"cause"`
			Mailboxes int            `json:"mailboxes"`
			Compared  int            `json:"compared"`
			Failed    int            `json:"failed"`
			Differ    int            `json:"differ"`
			Found     map[string]int `json:"found"`
		} `json:"last"`
		Trouble *struct {
			Run   string `json:"run"`
			Error string `json:"error"`
			Tries int    `json:"tries"`
		} `json:"trouble"`
	}
	if json.Unmarshal([]byte(d.Text), &r) != nil {
		return nil
	}
	f := Facts{"agency": strings.TrimPrefix(d.Key, verifyKey)}
	if r.Running != nil {
		f["running"], f["running_mode"], f["running_cause"] = r.Running.Run, r.Running.Mode, r.Running.Cause
	}
	if last := r.Last; last != nil {
		f["last"], f["mode"], f["cause"], f["mailboxes"], f["compared"] = last.Run, last.Mode, last.Cause, strconv.Itoa(last.Mailboxes), strconv.Itoa(last.Compared)
		f["failed"], f["differ"] = number(last.Failed), number(last.Differ)
		for _, kind := range []string{"crossed", "foreign", "clash", "possible", "missing"} {
			f[kind] = number(last.Found[kind])
		}
	}
	if r.Trouble != nil {
		f["trouble"], f["error"] = r.Trouble.Run+" "+strconv.Itoa(r.Trouble.Tries), r.Trouble.Error
	}
	return clean(f)
}

// stopFacts reads the stop of the plan, as package plan keeps it. What was found first is its reason.
func stopFacts(d *routing.Document) Facts {
	var s struct {
		Person   string `json:"person"`
		Findings []struct {
			Text string `json:"text"`
		} `json:"findings"`
	}
	if json.Unmarshal([]byte(d.Text), &s) != nil {
		return nil
	}
	f := Facts{"stopped": "yes", "who": s.Person}
	if len(s.Findings) > 0 {
		f["reason"] = s.Findings[0].Text
	}
	return clean(f)
}

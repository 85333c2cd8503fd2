package admin

import (
	"cmp"
	"context"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"mailcutover/admin/peer"
	"mailcutover/ledger"
	"mailcutover/routing"
)

// Deliveries are rows of the ledgers, the newest first.
type Deliveries struct {
	Deliveries []Delivery `json:"deliveries"`
	More       bool       `json:"more,omitempty" doc:"There are more than the limit"`
	Missing    []Missing  `json:"missing,omitempty" doc:"Nodes that did not answer: what went through them is not here"`
	Notes      []string   `json:"notes,omitempty" doc:"What may be missing here, and why"`
}

// Delivery is one handover to a platform, for one recipient.
type Delivery struct {
	Time        time.Time  `json:"time" doc:"Right before the final dot"`
	Answered    *time.Time `json:"answered,omitempty"`
	Node        string     `json:"node" doc:"Through which it went"`
	Transaction string     `json:"transaction"`
	Agency      string     `json:"agency,omitempty"`
	Mailbox     string     `json:"mailbox,omitempty" doc:"Directory id"`
	Epoch       string     `json:"epoch,omitempty" doc:"Of the agency's record by which it was decided"`
	Mapping     string     `json:"mapping,omitempty" doc:"Digest of the mapping by which it was decided; absent for fixed addresses, and in records of older versions"`
	From        string     `json:"from" doc:"Envelope sender; empty: the null sender"`
	Recipient   string     `json:"recipient"`
	MessageID   string     `json:"message_id,omitempty"`
	Size        int64      `json:"size"`
	Platform    string     `json:"platform"`
	Host        string     `json:"host,omitempty"`
	Result      string     `json:"result"`
	Code        int        `json:"code,omitempty"`
	Answer      string     `json:"answer,omitempty"`
}

const ledgerPath = "/v1/ledger"

// ledgerQuery asks for rows of the ledgers.
type ledgerQuery struct {
	Agency   string    `query:"agency" maxLength:"63" doc:"Of recipients"`
	All      bool      `query:"all" doc:"Of all agencies, and of fixed addresses; needed if no agency is named, refused otherwise"`
	Platform string    `query:"platform" maxLength:"63"`
	Result   string    `query:"result" enum:"delivered,not acknowledged,refused,in doubt,not sent,pending" doc:"How it ended"`
	Since    time.Time `query:"since" required:"true"`
	Until    time.Time `query:"until" doc:"Before then; absent: now"`
	Limit    int       `query:"limit" minimum:"1" maximum:"100000" default:"1000" doc:"Rows"`
	Here     bool      `query:"here" doc:"Only on this node"`
}

// values returns the query as a node is asked.
func (in *ledgerQuery) values() url.Values {
	q := span(in.Since, in.Until, in.Limit)
	for key, value := range map[string]string{"agency": in.Agency, "platform": in.Platform, "result": in.Result} {
		if value != "" {
			q.Set(key, value)
		}
	}
	if in.All {
		q.Set("all", "true")
	}
	return q
}

func (s *Server) registerLedger(api huma.API, tags []string) {
	handle(s, api, huma.Operation{
		OperationID: "list-ledger", Method: http.MethodGet, Path: ledgerPath, Tags: tags,
		Summary:     "What was handed to platforms, by recipient, the newest first, of all nodes",
		Description: "Another node is waited for five seconds; missing names those that did not answer.",
	}, func(ctx context.Context, in *ledgerQuery) (*reply[Deliveries], error) {
		q, err := in.search()
		if err != nil {
			return nil, err
		}
		theirs := make(chan Deliveries, 1)
		go func() { theirs <- s.deliveriesElsewhere(ctx, in, s.others(ctx, true)) }() // no longer than a peer's timeout
		out := s.deliveriesHere(ctx, &q, in.Limit)
		out.add(<-theirs)
		slices.SortStableFunc(out.Deliveries, func(a, b Delivery) int { return b.compare(&a) })
		if len(out.Deliveries) > in.Limit {
			out.Deliveries, out.More = out.Deliveries[:in.Limit], true
		}
		return &reply[Deliveries]{Body: out}, nil
	})
	s.registerExport(api, tags)
}

// search returns what the ledger is asked.
func (in *ledgerQuery) search() (q ledger.Query, err error) {
	if (in.Agency != "") == in.All {
		return q, problem(http.StatusBadRequest, "name an agency, or say all, one of them", "whose deliveries are wanted isn't said")
	}
	q = ledger.Query{Platform: routing.PlatformID(in.Platform), Since: in.Since, Until: in.Until}
	if in.Agency != "" {
		if q.Agency, err = routing.ParseAgencyID(in.Agency); err != nil {
			return q, err
		}
	}
	q.Result = resultOf(in.Result)
	return q, nil
}

// resultOf returns the result with this word; unknown if there is none.
func resultOf(word string) ledger.Result {
	for r := ledger.ResultPending; r <= ledger.ResultNotSent; r++ {
		if r.String() == word {
			return r
		}
	}
	return ledger.ResultUnknown
}

// compare orders rows by time, and rows of one moment in some order.
func (d *Delivery) compare(e *Delivery) int {
	return cmp.Or(d.Time.Compare(e.Time), cmp.Compare(d.Transaction, e.Transaction), cmp.Compare(d.Node, e.Node), cmp.Compare(d.Recipient, e.Recipient), cmp.Compare(d.Platform, e.Platform))
}

// add adds what other nodes found.
func (d *Deliveries) add(theirs Deliveries) {
	d.Deliveries = append(d.Deliveries, theirs.Deliveries...)
	d.More = d.More || theirs.More
	d.Missing = append(d.Missing, theirs.Missing...)
	d.Notes = append(d.Notes, theirs.Notes...)
}

// deliveriesElsewhere asks other nodes.
func (s *Server) deliveriesElsewhere(ctx context.Context, in *ledgerQuery, members []peer.Member) (all Deliveries) {
	if in.Here {
		return all
	}
	all.Missing = elsewhere(ctx, s, members, peer.Call{Method: http.MethodGet, Path: ledgerPath, Query: in.values(), Timeout: peerFindTimeout}, func(node string, theirs Deliveries) {
		for i, note := range theirs.Notes {
			theirs.Notes[i] = "node " + node + ": " + note
		}
		all.add(theirs)
	})
	return all
}

// deliveriesHere looks into this node's ledger. With more rows than the limit it ends behind the
// record that reaches it: a message's rows are not torn apart.
func (s *Server) deliveriesHere(ctx context.Context, q *ledger.Query, limit int) Deliveries {
	ctx, cancel := context.WithTimeout(ctx, findTimeout)
	defer cancel()
	d := Deliveries{Deliveries: []Delivery{}, Notes: s.doubts()}
	for r, err := range s.Ledger.Find(ctx, *q) {
		if err != nil {
			if ctx.Err() == nil {
				d.Notes = append(d.Notes, err.Error())
			}
			continue
		}
		if d.More = len(d.Deliveries) >= limit; d.More {
			break
		}
		for i := range r.Recipients {
			result := r.Answer(i).Result
			if r.Local && result != ledger.ResultNotAcknowledged || q.Result != ledger.ResultUnknown && q.Result != result {
				continue // nothing was handed over, and nothing may be there twice
			}
			if q.Agency == "" || r.Recipients[i].Agency == q.Agency {
				d.Deliveries = append(d.Deliveries, s.deliveryView(&r, i))
			}
		}
	}
	d.Notes = append(d.Notes, cutShort(ctx)...)
	return d
}

func (s *Server) deliveryView(r *ledger.Record, i int) Delivery {
	to, a := &r.Recipients[i], r.Answer(i)
	v := Delivery{
		Time: r.Time, Answered: timeView(r.Answered), Node: s.Node, Transaction: string(r.Transaction), Agency: string(to.Agency), From: r.From, Recipient: string(to.Address),
		MessageID: r.MessageID, Size: r.Size, Platform: string(r.Platform), Host: r.Host, Result: a.Result.String(), Code: a.Code, Answer: a.Text,
	}
	if !to.Mailbox.IsZero() {
		v.Mailbox = to.Mailbox.String()
	}
	if to.Epoch != (routing.Epoch{}) {
		v.Epoch = to.Epoch.String()
	}
	if !to.Mapping.IsZero() {
		v.Mapping = to.Mapping.String()
	}
	return v
}

// LedgerQuery asks for rows of the ledgers of all nodes. Agency or All is set.
type LedgerQuery struct {
	Agency, Platform, Result string
	All                      bool
	Since, Until             time.Time // until zero: now
	Limit                    int       // rows; 0: the node's default
}

// Deliveries returns rows of the ledgers, the newest first.
func (c *Client) Deliveries(ctx context.Context, l LedgerQuery) (Deliveries, error) {
	in := ledgerQuery{Agency: l.Agency, All: l.All, Platform: l.Platform, Result: l.Result, Since: l.Since, Until: l.Until, Limit: l.Limit}
	return get[Deliveries](ctx, c, ledgerPath, in.values())
}

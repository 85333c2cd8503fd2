package admin

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"mailcutover/admin/peer"
	"mailcutover/audit"
	"mailcutover/rollback/recall/desk"
	"mailcutover/routing"
	"mailcutover/routing/table"
)

const recallsPath = "/v1/recalls"

// peerShareTimeout is how long another node is waited for that tells how far its share is.
const peerShareTimeout = 3 * time.Second

// Recall is a run that brings mail over after a switch.
type Recall struct {
	ID         string       `json:"id"`
	Kind       string       `json:"kind" enum:"recall,sweep" doc:"recall: back to the source after a rollback; sweep: to the target after a cutover"`
	Agency     string       `json:"agency"`
	From       string       `json:"from" doc:"The losing platform"`
	To         string       `json:"to" doc:"The winning platform"`
	State      string       `json:"state" enum:"running,elsewhere,done,ended" doc:"elsewhere: it stands still, since the agency is on another platform; ended: before it was done"`
	Operation  string       `json:"operation,omitempty" doc:"The switch that it follows"`
	Person     string       `json:"person"`
	Reason     string       `json:"reason"`
	Begun      time.Time    `json:"begun"`
	After      time.Time    `json:"after" doc:"From then on nothing can reach the losing platform any more: a mailbox is done when a pass that began later found nothing"`
	Since      *time.Time   `json:"since,omitempty" doc:"Deliveries from then on are accounted for; absent: all that the ledgers have"`
	Watermarks string       `json:"watermarks,omitempty" doc:"Digest; absent: everything is compared"`
	Copies     bool         `json:"copies,omitempty" doc:"Retained copies are delivered, since the losing platform can't be read"`
	Totals     RecallTotals `json:"totals" doc:"Of the nodes that answered, or have brought their share"`
	Text       string       `json:"text" doc:"The totals in words"`
	Left       *float64     `json:"left_seconds,omitempty" doc:"Estimated; absent: not known, or it isn't under way"`
	Nodes      []RecallNode `json:"nodes"`
	Ended      *RecallWord  `json:"ended,omitempty" doc:"Who ended it before it was done"`
	Accepted   *RecallWord  `json:"accepted,omitempty" doc:"Who has seen to what is not back"`
	Missing    []Missing    `json:"missing" doc:"Nodes that did not answer: how far their shares are isn't known"`
}

// RecallTotals are sums over mailboxes.
type RecallTotals struct {
	Mailboxes int `json:"mailboxes"`
	Done      int `json:"done" doc:"A pass found nothing, after nothing could reach the losing platform any more"`
	Aside     int `json:"aside,omitempty" doc:"Put aside: they failed again and again"`

	Delivered     int            `json:"delivered" doc:"Messages that the nodes delivered to the losing platform, by their ledgers"`
	DeliveredBack int            `json:"delivered_back" doc:"Of them, found on the winning platform"`
	ByUsers       int            `json:"by_users" doc:"Brought, and not delivered by the nodes: sent, drafts, mail of colleagues"`
	Copied        int            `json:"copied" doc:"Not delivered by the nodes, and on the winning platform already, such as by the mover"`
	Moved         int            `json:"moved" doc:"Moved to the folder in which users had moved them"`
	NotBack       int            `json:"not_back" doc:"One by one with the node's mailboxes"`
	Gone          int            `json:"gone,omitempty" doc:"Delivered by the nodes, and not on the losing platform any more: users have deleted them there. Named with the others, and nothing has to be done about them"`
	Messages      int            `json:"messages" doc:"On the winning platform again"`
	Bytes         int64          `json:"bytes" doc:"That were brought"`
	Rewritten     int            `json:"rewritten,omitempty" doc:"Of them, given back by the winning platform with another size"`
	FlagsNotTaken map[string]int `json:"flags_not_taken,omitempty" doc:"Flags that the winning platform doesn't keep, and of how many messages"`
	Folders       int            `json:"folders,omitempty" doc:"Made on the winning platform"`
	Copies        int            `json:"copies,omitempty" doc:"Retained copies that were handed to the spool for delivery"`
	Ledgers       []string       `json:"ledgers,omitempty" doc:"That are not counted in delivered, and why: then it may be more"`
}

// RecallNode is a node's share.
type RecallNode struct {
	Node    string       `json:"node"`
	State   string       `json:"state" enum:"running,waiting,brought,silent,handed over,left alone" doc:"handed over: others have taken its share; left alone: the run ended before"`
	Totals  RecallTotals `json:"totals"`
	Waiting string       `json:"waiting,omitempty" doc:"For what"`
	Since   *time.Time   `json:"waiting_since,omitempty"`
	Left    *float64     `json:"left_seconds,omitempty" doc:"Estimated"`
	Notes   []string     `json:"notes,omitempty"`
	Silent  []string     `json:"silent,omitempty" doc:"Ledgers that are not counted in delivered, and why"`
	Boxes   []RecallBox  `json:"mailboxes,omitempty" doc:"Those about which there is something to say, if they were asked for"`
}

// RecallBox is a mailbox about which there is something to say.
type RecallBox struct {
	Mailbox string          `json:"mailbox" doc:"Directory id"`
	Address string          `json:"address"`
	Done    bool            `json:"done"`
	Aside   bool            `json:"aside,omitempty"`
	Reason  string          `json:"reason,omitempty" doc:"Why it isn't done"`
	NotBack []RecallNotBack `json:"not_back,omitempty"`
}

// RecallNotBack is a message that isn't back.
type RecallNotBack struct {
	Key    string `json:"key" doc:"Of the message, the same in each run"`
	Folder string `json:"folder,omitempty" doc:"On the losing platform. Users name folders: it is told to operators"`
	UID    uint32 `json:"uid,omitempty" doc:"In that folder"`
	Size   int64  `json:"size,omitempty" doc:"In bytes"`
	Class  string `json:"class"`
	Reason string `json:"reason"`
}

// RecallWord is what somebody said about a run.
type RecallWord struct {
	Person string    `json:"person"`
	Reason string    `json:"reason"`
	Time   time.Time `json:"time"`
}

// Recalls is a list of them.
type Recalls struct {
	Recalls    []Recall `json:"recalls" doc:"The newest last"`
	Unreadable string   `json:"unreadable,omitempty" doc:"That this node's program can't read"`
}

// NewRecall asks for a run.
type NewRecall struct {
	Agency     string `json:"agency" minLength:"1" maxLength:"63"`
	Everything bool   `json:"everything,omitempty" doc:"Compare everything, whatever the watermarks say"`
	Copies     bool   `json:"copies,omitempty" doc:"Deliver retained copies, since the losing platform can't be read"`
	Reason     string `json:"reason" minLength:"1" maxLength:"1000"`
}

// RecallPlan says what a run would do.
type RecallPlan struct {
	Agency string   `json:"agency"`
	From   string   `json:"from"`
	To     string   `json:"to"`
	Kind   string   `json:"kind" enum:"recall,sweep"`
	Nodes  []string `json:"nodes" doc:"That would share it"`
	Text   []string `json:"text"`
}

type recallAgency struct {
	Mutation
	Body NewRecall
}

func (in *recallAgency) scope() []routing.AgencyID {
	return []routing.AgencyID{routing.AgencyID(in.Body.Agency)}
}

type recallAct struct {
	Mutation
	ID   string `path:"id" maxLength:"200"`
	Body struct {
		Reason string `json:"reason" minLength:"1" maxLength:"1000"`
		Node   string `json:"node,omitempty" maxLength:"253" doc:"Of take-over: the node that is gone"`
	}
}

func (*recallAct) looksItself() {}

func (s *Server) registerRecall(api huma.API) {
	tags := []string{"recalls"}
	handle(s, api, huma.Operation{
		OperationID: "list-recalls", Method: http.MethodGet, Path: recallsPath, Tags: tags,
		Summary: "Runs that bring mail over after a switch, the newest last", Description: "Totals are those of shares that are brought; one run by its id has those of now.",
	}, func(_ context.Context, in *struct {
		Agency string `query:"agency" maxLength:"63"`
	}) (*reply[Recalls], error) {
		state := s.Replica.State()
		out := &reply[Recalls]{Body: Recalls{Recalls: []Recall{}}}
		runs, err := desk.Runs(state)
		if err != nil {
			out.Body.Unreadable = err.Error()
		}
		for i := range runs {
			if in.Agency == "" || in.Agency == string(runs[i].Agency) {
				out.Body.Recalls = append(out.Body.Recalls, recallView(state, &runs[i]))
			}
		}
		return out, nil
	})
	handle(s, api, huma.Operation{
		OperationID: "show-recall", Method: http.MethodGet, Path: recallsPath + "/{id}", Tags: tags,
		Summary: "One run, as far as it is now on all nodes", Description: "Another node is waited for three seconds; those that did not answer are named.",
	}, func(ctx context.Context, in *struct {
		ID    string `path:"id" maxLength:"200"`
		Boxes bool   `query:"mailboxes" doc:"With the mailboxes about which there is something to say"`
	}) (*reply[Recall], error) {
		v, err := s.recall(ctx, in.ID, in.Boxes)
		return &reply[Recall]{Body: v}, err
	})
	handle(s, api, huma.Operation{
		OperationID: "begin-recall", Method: http.MethodPost, Path: recallsPath, Tags: tags, DefaultStatus: http.StatusCreated,
		Summary: "Bring mail over to the platform on which an agency is", Description: "A switch begins a run by itself. This begins another one: what was brought is not brought again.",
	}, func(ctx context.Context, in *recallAgency) (*reply[Recall], error) {
		return s.beginRecall(ctx, &in.Body)
	})
	handle(s, api, huma.Operation{
		OperationID: "plan-recall", Method: http.MethodPost, Path: recallsPath + "/plan", Tags: tags, Summary: "What begin-recall would do",
	}, func(ctx context.Context, in *recallAgency) (*reply[RecallPlan], error) {
		return s.planRecall(ctx, &in.Body)
	})
	for _, act := range []struct {
		id, path, summary, description string
		do                             func(state *routing.State, id desk.ID, in *recallAct, w desk.Word) (desk.Run, []routing.Document, error)
	}{
		{"end-recall", "end", "End a run before it is done", "What isn't back stays where it is. A new run goes on.",
			func(state *routing.State, id desk.ID, _ *recallAct, w desk.Word) (desk.Run, []routing.Document, error) {
				return desk.End(state, id, w)
			}},
		{"accept-recall", "accept", "Say that what a run could not bring is seen to", "Until then the way back isn't finalised.",
			func(state *routing.State, id desk.ID, _ *recallAct, w desk.Word) (desk.Run, []routing.Document, error) {
				return desk.Accept(state, id, w)
			}},
		{"copy-recall", "copies", "Have retained copies delivered, since the losing platform can't be read now", "They go through the spool, with a null sender. What is in none of them is brought once the platform can be read again.",
			func(state *routing.State, id desk.ID, _ *recallAct, _ desk.Word) (desk.Run, []routing.Document, error) {
				return desk.DeliverCopies(state, id)
			}},
		{"take-over-recall", "take-over", "Let the other nodes bring the share of one that is gone", "They don't know what it had brought: what a user has deleted since may come back once.",
			func(state *routing.State, id desk.ID, in *recallAct, _ desk.Word) (desk.Run, []routing.Document, error) {
				return desk.TakeOver(state, id, routing.NodeID(in.Body.Node))
			}},
	} {
		handle(s, api, huma.Operation{
			OperationID: act.id, Method: http.MethodPost, Path: recallsPath + "/{id}/" + act.path, Tags: tags, Summary: act.summary, Description: act.description,
		}, func(ctx context.Context, in *recallAct) (*reply[Recall], error) {
			reason, err := checkReason(in.Body.Reason)
			if err != nil {
				return nil, err
			}
			w := desk.Word{Who: callerOf(ctx).person, Reason: reason, Time: time.Now().UTC()}
			return s.changeRecall(ctx, act.id, reason, func(state *routing.State) (desk.Run, []routing.Document, error) {
				r, docs, err := act.do(state, desk.ID(in.ID), in, w)
				if err == nil {
					err = s.within(ctx, []routing.AgencyID{r.Agency})
				}
				return r, docs, err
			})
		})
	}
	s.registerRecallPeers(api)
}

// changeRecall stores what compute makes of a run.
func (s *Server) changeRecall(ctx context.Context, what, reason string, compute func(*routing.State) (desk.Run, []routing.Document, error)) (*reply[Recall], error) {
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	var r desk.Run
	var entry audit.Entry
	_, err := s.changeAs(ctx, &entry, func(state *routing.State) (c table.Change, _ []*routing.Mapping, err error) {
		r, c.Documents, err = compute(state)
		entry.Subject = fmt.Sprintf("%s %s of agency %s, %s to %s", r.Kind, r.ID, r.Agency, r.From, r.To)
		c.What, c.Reason = fmt.Sprintf("%s %s of agency %s", what, r.ID, r.Agency), reason
		return c, nil, err
	})
	if err != nil {
		return nil, err
	}
	if s.Recall != nil {
		s.Recall.Look()
	}
	v, err := s.recall(ctx, string(r.ID), false)
	return &reply[Recall]{Body: v}, err
}

// recallDesk returns who brings mail over; an error: nobody does.
func (s *Server) recallDesk() (*desk.Desk, error) {
	if s.Recall == nil {
		return nil, problem(http.StatusServiceUnavailable, "see docs/operations/recall.md", "this node brings no mail over")
	}
	return s.Recall, nil
}

func (s *Server) recallOrder(ctx context.Context, in *NewRecall) (desk.Order, error) {
	reason, err := checkReason(in.Reason)
	if err == nil {
		if _, ok := s.Replica.State().Agency(routing.AgencyID(in.Agency)); !ok {
			err = noAgency(in.Agency)
		}
	}
	return desk.Order{Agency: routing.AgencyID(in.Agency), Everything: in.Everything, Copies: in.Copies, Who: callerOf(ctx).person, Reason: reason}, err
}

func (s *Server) beginRecall(ctx context.Context, in *NewRecall) (*reply[Recall], error) {
	k, err := s.recallDesk()
	if err != nil {
		return nil, err
	}
	o, err := s.recallOrder(ctx, in)
	if err != nil {
		return nil, err
	}
	return s.changeRecall(ctx, "begin-recall", o.Reason, func(state *routing.State) (desk.Run, []routing.Document, error) { return k.New(state, o) })
}

func (s *Server) planRecall(ctx context.Context, in *NewRecall) (*reply[RecallPlan], error) {
	k, err := s.recallDesk()
	if err != nil {
		return nil, err
	}
	o, err := s.recallOrder(ctx, in)
	if err != nil {
		return nil, err
	}
	r, _, err := k.New(s.Replica.State(), o)
	if err != nil {
		return nil, err
	}
	return &reply[RecallPlan]{Body: RecallPlan{
		Agency: in.Agency, From: string(r.From), To: string(r.To), Kind: string(r.Kind), Nodes: texts(r.Nodes), Text: k.Foresee(ctx, &r),
	}}, nil
}

// recallView is a run as the table has it.
func recallView(state *routing.State, r *desk.Run) Recall {
	t := r.Totals(state)
	v := Recall{
		ID: string(r.ID), Kind: string(r.Kind), Agency: string(r.Agency), From: string(r.From), To: string(r.To), State: string(r.Stands(state)),
		Operation: string(r.Operation), Person: r.Who, Reason: r.Reason, Begun: r.Begun, After: r.After, Copies: r.Copies,
		Totals: RecallTotals(t), Text: t.Text(), Nodes: []RecallNode{}, Ended: wordView(r.Ended), Accepted: wordView(r.Accepted), Missing: []Missing{},
	}
	if !r.Since.IsZero() {
		v.Since = &r.Since
	}
	if !r.Watermarks.IsZero() {
		v.Watermarks = r.Watermarks.String()
	}
	return v
}

func wordView(w *desk.Word) *RecallWord {
	if w == nil {
		return nil
	}
	return &RecallWord{Person: w.Who, Reason: w.Reason, Time: w.Time}
}

// recall returns a run as far as it is now.
func (s *Server) recall(ctx context.Context, id string, boxes bool) (Recall, error) {
	state := s.Replica.State()
	r, ok := desk.Find(state, desk.ID(id))
	if !ok {
		return Recall{}, notFound("see mailcutover recall list", "no recall %q", id)
	}
	v := recallView(state, &r)
	shares := make(map[string]desk.Share)
	if s.Recall != nil && slices.Contains(r.Nodes, routing.NodeID(s.Node)) {
		one, err := s.Recall.Share(ctx, r.ID, boxes)
		if err != nil {
			v.Missing = append(v.Missing, Missing{Node: s.Node, Error: err.Error()})
		} else {
			shares[s.Node] = one
		}
	}
	members := slices.DeleteFunc(s.others(ctx, true), func(m peer.Member) bool { return !slices.Contains(r.Nodes, routing.NodeID(m.Node)) })
	q := url.Values{}
	if boxes {
		q.Set("mailboxes", "true")
	}
	v.Missing = append(v.Missing, elsewhere(ctx, s, members, peer.Call{Method: http.MethodGet, Path: sharePath(id), Query: q, Timeout: peerShareTimeout},
		func(node string, theirs desk.Share) { shares[node] = theirs })...)
	who := callerOf(ctx)
	operates := who.has(mayOperate)
	left := 0.0
	known := v.State == string(desk.Running)
	var sum desk.Totals
	for _, n := range r.Nodes {
		one, answered := shares[string(n)]
		part, told := r.Part(state, n)
		view := RecallNode{Node: string(n), Totals: RecallTotals(one.Totals), Notes: one.Notes, Silent: one.Silent, Waiting: one.Waiting}
		if !one.Since.IsZero() {
			view.Since = &one.Since
		}
		if told {
			one.Totals, view.Totals = part.Totals, RecallTotals(part.Totals)
			view.Notes, view.Silent = part.Notes, part.Totals.Ledgers
		}
		switch {
		case slices.Contains(r.Without, n):
			view.State = "handed over"
		case told:
			view.State = "brought"
		case v.State != string(desk.Running):
			view.State = "left alone"
		case !answered:
			view.State, known = "silent", false
		case one.Waiting != "":
			view.State = "waiting"
		default:
			view.State = "running"
		}
		if view.State == "running" || view.State == "waiting" {
			if one.Left < 0 {
				known = false
			} else {
				seconds := one.Left.Seconds()
				view.Left, left = &seconds, max(left, seconds)
			}
		}
		if view.State != "handed over" {
			sum.Add(&one.Totals)
		}
		view.Boxes = boxViews(one.Boxes, operates)
		v.Nodes = append(v.Nodes, view)
	}
	for _, p := range r.Parts(state) { // copies are delivered by nodes without a share, too
		if !slices.Contains(r.Nodes, p.Node) {
			sum.Add(&p.Totals)
		}
	}
	v.Totals, v.Text = RecallTotals(sum), sum.Text()
	if known {
		v.Left = &left
	}
	return v, nil
}

func boxViews(boxes []desk.BoxStatus, operates bool) []RecallBox {
	var all []RecallBox
	for i := range boxes {
		b := &boxes[i]
		one := RecallBox{Mailbox: b.Mailbox.String(), Address: string(b.Address), Done: b.Done, Aside: b.Aside, Reason: b.Reason}
		for _, m := range b.NotBack {
			view := RecallNotBack{Key: m.Key.String(), UID: m.UID, Size: m.Size, Class: string(m.Class), Reason: m.Reason}
			if operates {
				view.Folder = m.Folder
			}
			one.NotBack = append(one.NotBack, view)
		}
		all = append(all, one)
	}
	slices.SortFunc(all, func(a, b RecallBox) int { return strings.Compare(a.Address, b.Address) })
	return all
}

// Recalls returns the runs of an agency; of all, if it is empty.
func (c *Client) Recalls(ctx context.Context, agency string) (Recalls, error) {
	q := url.Values{}
	if agency != "" {
		q.Set("agency", agency)
	}
	return get[Recalls](ctx, c, recallsPath, q)
}

// Recall returns one run as it is now; mailboxes: with those about which there is something
// to say.
func (c *Client) Recall(ctx context.Context, id string, mailboxes bool) (Recall, error) {
	q := url.Values{}
	if mailboxes {
		q.Set("mailboxes", "true")
	}
	return get[Recall](ctx, c, recallsPath+"/"+url.PathEscape(id), q)
}

// PlanRecall returns what a run would do.
func (c *Client) PlanRecall(ctx context.Context, r NewRecall) (RecallPlan, error) {
	return post[RecallPlan](ctx, c, recallsPath+"/plan", r)
}

// BeginRecall begins one.
func (c *Client) BeginRecall(ctx context.Context, r NewRecall) (Recall, error) {
	return post[Recall](ctx, c, recallsPath, r)
}

// ActOnRecall does one of end, accept, copies and take-over, of which the last needs a node.
func (c *Client) ActOnRecall(ctx context.Context, id, act, node, reason string) (Recall, error) {
	body := map[string]string{"reason": reason}
	if node != "" {
		body["node"] = node
	}
	return post[Recall](ctx, c, recallsPath+"/"+url.PathEscape(id)+"/"+act, body)
}

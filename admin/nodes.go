package admin

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"mailcutover/admin/peer"
	"mailcutover/routing/table"
)

// Nodes is what the table knows of its nodes.
type Nodes struct {
	Revision  uint64    `json:"revision"`
	Term      uint32    `json:"term"`
	Time      time.Time `json:"time" doc:"By the table's clock, as all times of leases"`
	Rejoining string    `json:"rejoining,omitempty" doc:"What the table waits for before it takes changes again"`
	Nodes     []Node    `json:"nodes"`
}

// Node is one of them.
type Node struct {
	Node     string     `json:"node"`
	Instance string     `json:"instance"`
	Address  string     `json:"address,omitempty" doc:"Of its API"`
	Build    string     `json:"build,omitempty"`
	Protocol int        `json:"protocol"`
	State    string     `json:"state" enum:"serving,draining,silent,given-up,evicted,attested,new" doc:"serving: its lease is valid; silent: it is over; given-up: it stopped in order"`
	Behind   bool       `json:"behind,omitempty" doc:"It has seen changes that the table lost"`
	Joined   time.Time  `json:"joined"`
	ShortEnd *time.Time `json:"short_lease_end,omitempty" doc:"From then on it serves no armed agency"`
	LongEnd  *time.Time `json:"long_lease_end,omitempty" doc:"From then on it serves nothing"`
	Applied  uint64     `json:"applied" doc:"Revision up to which it has seen everything"`
	InDoubt  int        `json:"in_doubt" doc:"Messages whose answer was lost"`
	Held     int        `json:"held" doc:"Messages in its spool, as it last said"`
	Waiting  int        `json:"waiting"`
	Sessions *int       `json:"sessions,omitempty" doc:"Of logins, if they were asked for; absent if the node did not answer"`
}

func (s *Server) registerNodes(api huma.API) {
	handle(s, api, huma.Operation{
		OperationID: "list-nodes", Method: http.MethodGet, Path: "/v1/nodes", Summary: "All nodes of the table, by name", Tags: []string{"nodes"},
	}, func(ctx context.Context, in *struct {
		Sessions bool `query:"sessions" doc:"Ask each node how many sessions of logins it has; it is waited for a second"`
	}) (*reply[Nodes], error) {
		ctx, cancel := context.WithTimeout(ctx, changeTimeout)
		defer cancel()
		n, err := s.Table.Nodes(ctx)
		if err != nil {
			return nil, err
		}
		v := nodesView(&n)
		if in.Sessions {
			s.countSessions(ctx, &v)
		}
		return &reply[Nodes]{Body: v}, nil
	})
}

func nodesView(n *table.Nodes) Nodes {
	v := Nodes{Revision: uint64(n.Position.Revision), Term: n.Position.Term, Time: n.Time, Rejoining: n.Rejoining, Nodes: []Node{}}
	for i := range n.Members {
		m := &n.Members[i]
		l, leased := n.Leases[m.Node]
		leased = leased && l.Instance == m.Instance
		one := Node{
			Node: string(m.Node), Instance: string(m.Instance), Address: m.Address, Build: m.Build, Protocol: m.Protocol, Joined: m.Joined,
			Behind: leased && l.Behind, Applied: uint64(l.Applied),
		}
		switch {
		case m.Evicted:
			one.State = "evicted"
		case m.Attested == m.Instance:
			one.State = "attested"
		case !leased:
			one.State = "new"
		case l.LongEnd.IsZero():
			one.State = "given-up"
		case !n.Time.Before(l.LongEnd):
			one.State = "silent"
		case m.Draining:
			one.State = "draining"
		default:
			one.State = "serving"
		}
		if leased {
			one.ShortEnd, one.LongEnd = timeView(l.ShortEnd), timeView(l.LongEnd)
			for _, d := range l.Doubts {
				one.InDoubt += d.Messages
			}
			for _, c := range l.Counts {
				one.Held += c.Held
				one.Waiting += c.Waiting
			}
		}
		v.Nodes = append(v.Nodes, one)
	}
	return v
}

// countSessions asks the nodes that serve how many sessions they have.
func (s *Server) countSessions(ctx context.Context, v *Nodes) {
	count := map[string]int{s.Node: len(s.mySessions(SessionQuery{}))}
	call := peer.Call{Method: http.MethodGet, Path: sessionsPath, Query: url.Values{"limit": {"1"}}}
	elsewhere(ctx, s, s.others(ctx, false), call, func(node string, theirs Sessions) { count[node] = theirs.Total })
	for i := range v.Nodes {
		if n, ok := count[v.Nodes[i].Node]; ok {
			v.Nodes[i].Sessions = &n
		}
	}
}

// NodesWithSessions returns what the table knows of its nodes, and how many sessions they say
// they have.
func (c *Client) NodesWithSessions(ctx context.Context) (Nodes, error) {
	return get[Nodes](ctx, c, "/v1/nodes", url.Values{"sessions": {"true"}})
}

// Nodes returns what the table knows of its nodes.
func (c *Client) Nodes(ctx context.Context) (Nodes, error) {
	return get[Nodes](ctx, c, "/v1/nodes", nil)
}

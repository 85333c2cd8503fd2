package admin

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"mailcutover/audit"
	"mailcutover/notice"
	"mailcutover/notice/desk"
)

// Notices tells programs and people of events; *desk.Desk is one.
type Notices interface {
	Status() ([]desk.Status, error)
	Test(ctx context.Context, channel, who, reason string) (notice.Event, error)
}

// NoticeChannels are the channels that are told of events, as one node sees them.
type NoticeChannels struct {
	Node     string          `json:"node"`
	Channels []NoticeChannel `json:"channels"`
}

// NoticeChannel is a webhook or a list of people that is told of events.
type NoticeChannel struct {
	Name     string   `json:"name"`
	Kind     string   `json:"kind" enum:"webhook,mail"`
	To       string   `json:"to" doc:"Where it leads, without what may be a secret"`
	Events   []string `json:"events" doc:"Patterns of types; empty: all"`
	Agencies []string `json:"agencies" doc:"Empty: all, and events of none"`

	Teller   string     `json:"teller,omitempty" doc:"The node that tells of the table's events; of its own alarms each node tells"`
	Waiting  int        `json:"waiting" doc:"Events that it hasn't got; of the table's only where this node tells of them"`
	Oldest   *time.Time `json:"oldest,omitempty" doc:"Of them"`
	Failures int        `json:"failures,omitempty" doc:"Attempts in a row"`
	Error    string     `json:"error,omitempty" doc:"Of the last attempt, if it failed"`
	Next     *time.Time `json:"next,omitempty" doc:"When it is tried again"`
	Sent     *time.Time `json:"sent,omitempty" doc:"When it last took something; absent: not since the node's start"`
	Told     uint64     `json:"told" doc:"Events that it got since the node's start"`
}

// NoticeTested says what came of a test.
type NoticeTested struct {
	Channel string `json:"channel"`
	Event   string `json:"event" doc:"Its id: the header webhook-id of a webhook"`
	Node    string `json:"node"`
}

const noticesPath = "/v1/notices"

type noticeTest struct {
	Mutation
	Name string `path:"name" maxLength:"63"`
	Body struct {
		Reason string `json:"reason" minLength:"1" maxLength:"1000" doc:"Why; stands in the event and in the audit log"`
	}
}

func (s *Server) registerNotices(api huma.API) {
	tags := []string{"notices"}
	handle(s, api, huma.Operation{
		OperationID: "list-notices", Method: http.MethodGet, Path: noticesPath, Tags: tags, Summary: "Who is told of events, and what waits, as this node has it",
	}, func(context.Context, *struct{}) (*reply[NoticeChannels], error) {
		out := NoticeChannels{Node: s.Node, Channels: []NoticeChannel{}}
		if s.Notices == nil {
			return &reply[NoticeChannels]{Body: out}, nil
		}
		all, err := s.Notices.Status()
		for i := range all {
			out.Channels = append(out.Channels, noticeView(&all[i]))
		}
		return &reply[NoticeChannels]{Body: out}, err
	})
	handle(s, api, huma.Operation{
		OperationID: "test-notice", Method: http.MethodPost, Path: noticesPath + "/{name}/test", Tags: tags,
		Summary: "Send one channel an event that says only that somebody tries, at once and once", Description: "It goes from this node, past what waits. The answer comes when the receiver has it, or with the reason why not.",
	}, func(ctx context.Context, in *noticeTest) (*reply[NoticeTested], error) {
		v, err := s.testNotice(ctx, in.Name, in.Body.Reason)
		return &reply[NoticeTested]{Body: v}, err
	})
}

func noticeView(one *desk.Status) NoticeChannel {
	return NoticeChannel{
		Name: one.Name, Kind: one.Kind, To: one.To, Events: append([]string{}, one.Filter.Types...), Agencies: append([]string{}, one.Filter.Agencies...),
		Teller: one.Teller, Waiting: one.Waiting, Oldest: timeView(one.Oldest), Failures: one.Failures, Error: one.Failure, Next: timeView(one.Next), Sent: timeView(one.Sent), Told: one.Told,
	}
}

func (s *Server) testNotice(ctx context.Context, name, reason string) (v NoticeTested, err error) {
	if s.Notices == nil {
		return v, problem(http.StatusServiceUnavailable, "see docs/operations/notices.md", "this node tells nobody of events")
	}
	if reason, err = checkReason(reason); err != nil {
		return v, err
	}
	if err := s.record(ctx, audit.Entry{Subject: "notices " + name, Reason: reason}); err != nil {
		return v, err
	}
	e, err := s.Notices.Test(ctx, name, callerOf(ctx).person, reason)
	switch {
	case errors.Is(err, desk.ErrNoChannel):
		return v, notFound("see mailcutover notice list", "no webhook and no mail %q is configured", name)
	case errors.Is(err, desk.ErrEnded):
		return v, problem(http.StatusServiceUnavailable, "try again", "the node stops")
	case err != nil:
		return v, problem(http.StatusBadGateway, "docs/operations/notices.md says what receivers have to do", "%s", err.Error())
	}
	return NoticeTested{Channel: name, Event: e.ID, Node: s.Node}, nil
}

// Notices returns who is told of events, as the node has it.
func (c *Client) Notices(ctx context.Context) (NoticeChannels, error) {
	return get[NoticeChannels](ctx, c, noticesPath, nil)
}

// TestNotice sends one channel a test.
func (c *Client) TestNotice(ctx context.Context, name, reason string) (NoticeTested, error) {
	return post[NoticeTested](ctx, c, noticesPath+"/"+url.PathEscape(name)+"/test", map[string]string{"reason": reason})
}

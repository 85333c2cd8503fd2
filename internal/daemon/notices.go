package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"mailcutover/internal/config"
	"mailcutover/internal/durable"
	"mailcutover/internal/metrics"
	"mailcutover/mail"
	"mailcutover/notice"
	"mailcutover/notice/desk"
	"mailcutover/notice/letter"
	"mailcutover/notice/webhook"
	"mailcutover/proxy/relay"
	"mailcutover/routing"
)

// notices tells programs and people of events.
type notices struct {
	desk  *desk.Desk
	ways  noticeWays // by the configuration in force; changed with reloading held
	began bool
}

// noticeWays are the channels of one configuration, and what has to be closed with them.
type noticeWays struct {
	channels []*desk.Channel
	close    []func()
}

func (w *noticeWays) end() {
	for _, end := range w.close {
		end()
	}
}

const (
	// letterTimeout bounds one attempt to hand a letter over.
	letterTimeout = 2 * time.Minute

	// lettersEvery is the least time between two letters of a channel, and lettersMost how many events one has.
	lettersEvery = time.Minute
	lettersMost  = 500
)

// startNotices begins to tell of events.
func (d *Daemon) startNotices(cfg *config.Config) error {
	dir := filepath.Join(cfg.Data, "notices")
	if _, err := durable.Open(nil, dir); err != nil {
		return fmt.Errorf("make the directory of notices: %w", err)
	}
	ways, err := d.openNotices(cfg)
	if err != nil {
		return err
	}
	id, _ := d.keeper.Node()
	k, err := desk.New(desk.Options{
		Node: id, Installation: cfg.Installation, Table: d.table, Replica: d.replica, Alarms: d.alarms, Dir: dir, Logger: d.logger,
		Started: time.Now(), Build: d.version.Version,
	})
	if err != nil {
		ways.end()
		return err
	}
	d.notices = notices{desk: k, ways: ways, began: true}
	k.Configure(ways.channels)
	d.parts.Go(func() { k.Run(d.ctx) })
	return nil
}

// closeNotices closes what startNotices opened, after the node's parts have ended.
func (d *Daemon) closeNotices() error {
	if !d.notices.began {
		return nil
	}
	d.notices.ways.end()
	return d.notices.desk.Close()
}

// takeOverNotices puts other channels into force. What waits for those that stay is kept.
func (d *Daemon) takeOverNotices(ways noticeWays) {
	old := d.notices.ways
	d.notices.ways = ways
	d.notices.desk.Configure(ways.channels)
	old.end() // what is under way fails, and is tried again
}

// openNotices makes the channels that a configuration asks for.
func (d *Daemon) openNotices(cfg *config.Config) (ways noticeWays, err error) {
	defer func() {
		if err != nil {
			ways.end()
		}
	}()
	n := &cfg.Notices
	for i := range n.Webhooks {
		w := &n.Webhooks[i]
		o := webhook.Options{
			URL: w.URL, Timeout: w.Timeout, AllowPlaintext: w.AllowPlaintext, AllowLoopback: w.AllowLoopback,
			Agent: "mailcutover/" + cmp.Or(d.version.Version, "unknown"),
		}
		for _, s := range []config.Secret{w.Secret, w.FormerSecret} {
			if !s.IsSet() {
				continue
			}
			secret, err := webhook.ParseSecret(s.Reveal())
			if err != nil {
				return ways, fmt.Errorf("webhook %s: %w", w.Name, err)
			}
			o.Secrets = append(o.Secrets, secret)
		}
		if w.CAFile != "" {
			if o.Roots, err = certificates(w.CAFile); err != nil {
				return ways, fmt.Errorf("webhook %s: %w", w.Name, err)
			}
		}
		sender, err := webhook.New(o)
		if err != nil {
			return ways, fmt.Errorf("webhook %s: %w", w.Name, err)
		}
		ways.close = append(ways.close, sender.Close)
		ways.channels = append(ways.channels, &desk.Channel{
			Name: w.Name, Kind: "webhook", To: webhook.Host(w.URL), Filter: wanted(w.Events, w.Agencies), Most: 1, Timeout: w.Timeout,
			Send: func(ctx context.Context, events []notice.Event) error { return sender.Send(ctx, &events[0]) },
		})
	}
	if len(n.Mail) == 0 {
		return ways, nil
	}
	templates := letter.BuiltIn()
	if n.Templates != "" {
		if templates, err = letter.ReadTemplates(n.Templates); err != nil {
			return ways, err
		}
	}
	for i := range n.Mail {
		l := &n.Mail[i]
		pool, to, err := d.letterWay(cfg, l, &ways)
		if err != nil {
			return ways, fmt.Errorf("mail about events %s: %w", l.Name, err)
		}
		form := letter.Letter{
			Templates: templates, Language: notice.Language(l.Language), Installation: cfg.Installation, Node: cfg.Node, Channel: l.Name,
			From: cmp.Or(n.From, cfg.Routing.Postmaster), To: l.To,
		}
		ways.channels = append(ways.channels, &desk.Channel{
			Name: l.Name, Kind: "mail", To: to, Filter: wanted(l.Events, l.Agencies), Most: lettersMost, Every: lettersEvery, Timeout: letterTimeout,
			Send: func(ctx context.Context, events []notice.Event) error {
				one := form
				one.Events, one.Date = events, time.Now()
				return d.sendLetter(ctx, pool(), &one)
			},
		})
	}
	return ways, nil
}

// noticeCounts are the figures of the channels on this node.
func (d *Daemon) noticeCounts() []metrics.NoticeChannel {
	k := d.notices.desk
	if k == nil {
		return nil
	}
	channels, err := k.Status()
	if err != nil {
		d.logger.Warn("figures of notices can't be read", "error", err)
		return nil
	}
	all := make([]metrics.NoticeChannel, len(channels))
	for i := range channels {
		c := &channels[i]
		all[i] = metrics.NoticeChannel{Name: c.Name, Waiting: c.Waiting, Sent: c.Told, Lost: c.Lost, Missed: c.Missed}
		if !c.Oldest.IsZero() {
			all[i].Oldest = max(0, time.Since(c.Oldest))
		}
	}
	return all
}

func wanted(events []string, agencies []routing.AgencyID) notice.Filter {
	f := notice.Filter{Types: events}
	for _, id := range agencies {
		f.Agencies = append(f.Agencies, string(id))
	}
	return f
}

// letterWay returns where letters are handed to; pool may return nil while a reload takes a
// platform away. to says it to people.
func (d *Daemon) letterWay(cfg *config.Config, l *config.Letters, ways *noticeWays) (pool func() *relay.Pool, to string, err error) {
	if l.Platform != "" {
		id := routing.PlatformID(l.Platform)
		return func() *relay.Pool {
			list := d.platforms.Load().list
			if i := slices.IndexFunc(list, func(p relay.Platform) bool { return p.ID == id }); i >= 0 {
				return list[i].Outside
			}
			return nil
		}, "platform " + l.Platform, nil
	}
	p := config.DefaultPlatform()
	p.ID = routing.PlatformID("notices/" + l.Name) // no platform can have that id
	p.Outside.Hosts, p.Outside.TLS, p.Outside.Limits.Connections = []string{l.Relay}, l.TLS, 1
	settings, err := endpoint(cfg, &p, mail.OriginOutside)
	if err != nil {
		return nil, "", err
	}
	own, err := relay.NewPool(settings, relay.Options{Logger: d.logger})
	if err != nil {
		return nil, "", err
	}
	ways.close = append(ways.close, own.Close)
	return func() *relay.Pool { return own }, "relay " + l.Relay, nil
}

// sendLetter hands a letter over. If some of its recipients are refused, the others have it,
// and an alarm names the refused ones.
func (d *Daemon) sendLetter(ctx context.Context, pool *relay.Pool, l *letter.Letter) error {
	if pool == nil {
		return errors.New("its platform isn't configured any more")
	}
	text, err := l.Bytes()
	if err != nil {
		return fmt.Errorf("%w: %w", notice.ErrRejected, err)
	}
	from, err := mail.ParsePath(l.From, false)
	if err != nil {
		return fmt.Errorf("sender of notices: %w", err)
	}
	rcpts := make([]relay.Recipient, len(l.To))
	for i, to := range l.To {
		if rcpts[i].To, err = mail.ParsePath(to, false); err != nil {
			return fmt.Errorf("recipient of notices: %w", err)
		}
	}
	t, err := pool.Open(ctx, mail.Client{}, from, nil)
	if err != nil {
		return err
	}
	defer t.Abort()
	var refused []string
	var first error
	for i, err := range t.Rcpts(ctx, rcpts) {
		if err != nil {
			refused = append(refused, l.To[i])
			first = cmp.Or(first, err)
		}
	}
	if len(refused) == len(l.To) {
		return forGood(first)
	}
	if err := t.Data(ctx); err != nil {
		return forGood(err)
	}
	if _, err := t.Write(text); err != nil {
		return err
	}
	if err := cmp.Or(t.Finish(ctx)...); err != nil {
		return forGood(err)
	}
	key := "notices-recipients/" + l.Channel
	if refused == nil {
		d.alarms.Clear(key)
		return nil
	}
	d.alarms.Raise(key, fmt.Sprintf("Of the recipients of the channel %s, %s were refused, and get no mail about events: %v", l.Channel, strings.Join(refused, ", "), first))
	return nil
}

// forGood marks a refusal that is about the letter or its recipients.
func forGood(err error) error {
	if r, ok := errors.AsType[*relay.PlatformReply](err); ok && r.Reply.Code/100 == 5 && !r.Ours {
		return fmt.Errorf("%w: %w", notice.ErrRejected, err)
	}
	return err
}

package desk

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"mailcutover/identity/directory"
	"mailcutover/identity/model"
	"mailcutover/internal/alarm"
	"mailcutover/routing"
)

// brokenIn is a directory whose reading is cut after some objects, as long as broken is set.
type brokenIn struct {
	objects
	broken  bool
	reading func(n int) // called before each object
}

func (b *brokenIn) Read(ctx context.Context, each func(*directory.Object) error) (directory.Snapshot, error) {
	n := 0
	s, err := b.objects.Read(ctx, func(o *directory.Object) error {
		if b.reading != nil {
			b.reading(n)
		}
		if n++; b.broken && n > 2 {
			return errors.New("the connection is lost")
		}
		return each(o)
	})
	return s, err
}

// The figures of a directory tell a whole reading from one that was cut, and how far one is.
func TestCountsAndProgress(t *testing.T) { synctest.Test(t, countsAndProgress) }

func countsAndProgress(t *testing.T) {
	m, err := model.New(model.Options{Rules: []model.Rule{{Agency: "health", Base: "ou=health,dc=x"}}})
	if err != nil {
		t.Fatal(err)
	}
	dir := &brokenIn{objects: persons(5), broken: true}
	s := withLists(t, table(t, 4, false), recorded("health", 1, 10, pair(1), pair(2), pair(3)))
	d, err := New(Options{Source: dir, Model: m, State: func() *routing.State { return s }, Alarms: alarm.NewSet(nil), CheckAge: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = d.Run(ctx) }()
	defer func() { cancel(); <-ended }()
	if err := d.Refresh(ctx); err == nil {
		t.Fatal("a reading that was cut came to its end")
	}
	synctest.Wait()
	if c := d.Counts(); len(c.Directories) != 1 || c.Directories[0].Age != -1 || c.Directories[0].Failures == 0 || len(c.Drift) != 0 {
		t.Errorf("%+v", c)
	}
	failures := d.Counts().Directories[0].Failures
	dir.broken = false
	if err := d.Refresh(ctx); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
	time.Sleep(time.Minute)
	c := d.Counts()
	if one := c.Directories[0]; one.Directory != "ad" || one.Age != time.Minute || one.Objects != 5 || one.Failures != failures {
		t.Errorf("%+v", one)
	}
	// p4 is in no list, p5 isn't routed either.
	if len(c.Drift) != 1 || c.Drift[0] != (DriftCounts{Agency: "health", Blocks: 2}) {
		t.Errorf("drift %+v", c.Drift)
	}
	if p := d.Progress(); p != (Progress{}) {
		t.Errorf("nothing is read, and it is at %+v", p)
	}
	var seen Progress
	dir.reading = func(n int) {
		if n == 3 {
			seen = d.Progress()
		}
	}
	if err := d.Refresh(ctx); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
	if seen != (Progress{Directory: "ad", Objects: 3, Before: 5}) {
		t.Errorf("in the middle it is at %+v", seen)
	}
}

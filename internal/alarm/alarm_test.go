package alarm

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestRaisedOnceListedUntilDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		s := NewSet(slog.New(slog.NewTextHandler(&log, nil)))
		start := time.Now()
		s.Raise("forward-left:exchange", "forward left on exchange for a@example.org")
		time.Sleep(time.Minute)
		s.Raise("replica-behind", "replica is behind")
		time.Sleep(time.Minute)
		s.Raise("forward-left:exchange", "forward left on exchange for b@example.org")

		list := s.List()
		if len(list) != 2 || s.Len() != 2 {
			t.Fatalf("list is %v, want two alarms", list)
		}
		want := Alarm{Key: "forward-left:exchange", Text: "forward left on exchange for b@example.org", Since: start, Last: start.Add(2 * time.Minute), Count: 2}
		if list[0] != want {
			t.Errorf("first alarm is %+v, want %+v", list[0], want)
		}
		if list[1].Key != "replica-behind" || list[1].Count != 1 {
			t.Errorf("second alarm is %+v", list[1])
		}
		if n := strings.Count(log.String(), "level=ERROR"); n != 2 {
			t.Errorf("%d lines at level error, want one for each alarm:\n%s", n, &log)
		}
		if s.Raised() != 3 {
			t.Errorf("raised %d times, want 3", s.Raised())
		}

		if !s.Clear("forward-left:exchange") || s.Clear("forward-left:exchange") {
			t.Error("Clear doesn't say whether the alarm was there")
		}
		if list := s.List(); len(list) != 1 || list[0].Key != "replica-behind" {
			t.Errorf("list is %v after Clear", list)
		}
		s.Raise("forward-left:exchange", "again")
		if n := strings.Count(log.String(), "level=ERROR"); n != 3 {
			t.Errorf("an alarm that came back was not logged:\n%s", &log)
		}
		if list := s.List(); list[1].Count != 1 || list[1].Since != start.Add(2*time.Minute) {
			t.Errorf("an alarm that came back is %+v, want it to begin anew", list[1])
		}
	})
}

func TestBounded(t *testing.T) {
	var log bytes.Buffer
	s := NewSet(slog.New(slog.NewTextHandler(&log, nil)))
	for i := range Most + 5 {
		s.Raise(fmt.Sprint("key-", i), "text")
	}
	if n := s.Len(); n != Most+1 {
		t.Errorf("%d alarms, want %d and one for the rest", n, Most)
	}
	for _, a := range s.List() {
		if a.Key == OverflowKey && a.Count != 5 {
			t.Errorf("overflow is %+v, want a count of 5", a)
		}
	}
	if !strings.Contains(log.String(), "alarm=key-1004") {
		t.Error("an alarm beyond the list is not in the log")
	}
	s.Raise("key-7", "again") // one that has its place still counts there
	for _, a := range s.List() {
		if a.Key == "key-7" && a.Count != 2 {
			t.Errorf("alarm is %+v, want a count of 2", a)
		}
	}
}

func TestConcurrent(t *testing.T) {
	s := NewSet(nil)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 200 {
				s.Raise(fmt.Sprint("key-", j%10), "text")
				if j%50 == i {
					s.Clear("key-3")
				}
				s.List()
			}
		})
	}
	wg.Wait()
	if s.Raised() != 1600 {
		t.Errorf("raised %d times, want 1600", s.Raised())
	}
	for _, a := range s.List() {
		if a.Key != "key-3" && a.Count != 160 {
			t.Errorf("alarm is %+v, want a count of 160", a)
		}
	}
}

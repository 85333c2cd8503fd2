package spool

import (
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"mailcutover/internal/durable/memdisk"
)

// What is to be told once the spool has written an outcome waits for a disk that has no room.
func TestWrittenWaitsForTheDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := memdisk.New()
		s := openStore(t, Options{Disk: disk})
		defer func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}()
		one := accept(t, s, "one", rcpt("anna", "health", StateHeld))
		two := accept(t, s, "two", rcpt("anna", "health", StateHeld))
		var told []string
		if err := s.Set(Outcome{Transaction: one, State: StateDelivered}); err != nil {
			t.Fatal(err)
		}
		s.Written(func() { told = append(told, "one") })
		if len(told) != 1 {
			t.Fatalf("with room: told %q, want one at once", told)
		}
		disk.Fail(func(op memdisk.Op, _ string) error {
			if op == memdisk.OpWrite {
				return syscall.ENOSPC
			}
			return nil
		})
		if err := s.Set(Outcome{Transaction: two, State: StateDelivered}); err == nil {
			t.Fatal("an outcome was written on a full disk")
		}
		s.Written(func() { told = append(told, "two") })
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if len(told) != 1 {
			t.Fatalf("on a full disk: told %q", told)
		}
		disk.Fail(nil)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if len(told) != 2 {
			t.Fatalf("with room again: told %q, want two", told)
		}
	})
}

/* Frames over TCP: whole and in order, however little the connection takes at a time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/clock.h"
#include "rendezvous/rendezvous.h"
#include "rendezvous/stream.h"

enum { SENDERS = 4, FRAMES = 120 };

/* Two ends of one TCP connection that buffers little. */
static void connect_pair(int ends[2])
{
    struct zc_endpoint endpoint;
    const int small = 8192;
    int listener, error;

    assert_true(zc_net_resolve("127.0.0.1", 0, &endpoint));
    assert_int_equal(zc_net_listen_tcp(&endpoint, &listener), 0);
    setsockopt(listener, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    assert_true(zc_net_here(listener, &endpoint));
    assert_int_equal(zc_net_start_tcp(&endpoint, &ends[0]), 0);
    assert_true(zc_net_wait(listener, POLLIN, zc_deadline_in(UINT64_C(5000000000))));
    ends[1] = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    assert_true(ends[1] >= 0);
    error = setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
    assert_int_equal(error, 0);
    close(listener);
}

static uint32_t size_of(uint32_t sender, uint32_t frame)
{
    return (sender * 7919 + frame * 104729) % (ZC_MAX_MESSAGE + 1);
}

struct sender {
    struct zc_stream *stream;
    uint32_t number;
    int error;
};

/* As many frames as it may, from its own thread; the tag says which. */
static void *send_all(void *data)
{
    struct sender *sender = data;
    unsigned char *bytes = malloc(ZC_MAX_MESSAGE);

    for (uint32_t i = 0; i < FRAMES && sender->error == 0; i++) {
        const struct zc_frame frame = {.kind = ZC_FRAME_NOTICE,
                                       .bytes = size_of(sender->number, i),
                                       .tag = (uint64_t)sender->number << 32 | i};
        uint8_t head[ZC_WIRE_FRAME];

        memset(bytes, (int)(sender->number * 50 + i), frame.bytes);
        zc_wire_frame_encode(head, &frame);
        do {
            sender->error = zc_stream_send(sender->stream, head, sizeof head, bytes, frame.bytes);
            if (sender->error == EAGAIN)
                zc_net_wait(sender->stream->fd, POLLOUT, zc_deadline_in(UINT64_C(1000000000)));
        } while (sender->error == EAGAIN);
    }
    free(bytes);
    return NULL;
}

/* Takes one frame and checks it; what it counts are the frames of each sender so far. */
static enum zc_packet_result take_one(struct zc_stream *stream, uint32_t next[SENDERS])
{
    struct zc_packet packet = {0};
    const enum zc_packet_result result = zc_stream_receive(stream, &packet);
    struct zc_frame frame;
    uint32_t sender;

    if (result != ZC_PACKET_TAKEN)
        return result;
    assert_int_equal(zc_wire_frame_decode(packet.buffer, packet.bytes, &frame), ZC_WIRE_OK);
    sender = (uint32_t)(frame.tag >> 32);
    assert_in_range(sender, 0, SENDERS - 1);
    assert_int_equal((uint32_t)frame.tag, next[sender]);
    assert_int_equal(frame.bytes, size_of(sender, next[sender]));
    for (uint32_t i = 0; i < frame.bytes; i++)
        if (((const uint8_t *)packet.buffer)[ZC_WIRE_FRAME + i] !=
            (uint8_t)(sender * 50 + next[sender]))
            fail();
    next[sender]++;
    return result;
}

static void frames_of_several_threads_come_whole_and_in_order(void **state)
{
    struct zc_stream *out = zc_stream_create(), *in = zc_stream_create();
    struct sender senders[SENDERS];
    pthread_t threads[SENDERS];
    uint32_t next[SENDERS] = {0}, taken = 0;
    const int room = epoll_create1(EPOLL_CLOEXEC);
    int ends[2];

    (void)state;
    connect_pair(ends);
    out->fd = ends[0];
    in->fd = ends[1];
    assert_int_equal(zc_stream_watch(out, room, 7), 0);
    for (uint32_t i = 0; i < SENDERS; i++) {
        senders[i] = (struct sender){.stream = out, .number = i};
        assert_int_equal(pthread_create(&threads[i], NULL, send_all, &senders[i]), 0);
    }
    while (taken < SENDERS * FRAMES) {
        struct epoll_event event;
        const enum zc_packet_result result = take_one(in, next);

        assert_true(result == ZC_PACKET_TAKEN || result == ZC_PACKET_NONE);
        taken += result == ZC_PACKET_TAKEN;
        /* What was kept goes on as soon as there is room, without another send. */
        if (result == ZC_PACKET_NONE && epoll_wait(room, &event, 1, 10) == 1) {
            assert_int_equal(event.data.u32, 7);
            zc_stream_flush(out);
        }
    }
    for (uint32_t i = 0; i < SENDERS; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(senders[i].error, 0);
    }
    assert_int_equal(take_one(in, next), ZC_PACKET_NONE);
    close(ends[0]);
    assert_int_equal(take_one(in, next), ZC_PACKET_END);
    close(ends[1]);
    close(room);
    zc_stream_destroy(out);
    zc_stream_destroy(in);
}

static void a_frame_that_claims_too_much_is_broken_and_costs_no_memory(void **state)
{
    struct zc_stream *in = zc_stream_create();
    struct zc_packet packet;
    uint8_t head[ZC_WIRE_FRAME];
    int ends[2];

    (void)state;
    connect_pair(ends);
    in->fd = ends[1];
    memset(head, 0xff, sizeof head);
    assert_true(zc_net_send_small(ends[0], head, sizeof head));
    assert_true(zc_net_wait(ends[1], POLLIN, zc_deadline_in(UINT64_C(5000000000))));
    assert_int_equal(zc_stream_receive(in, &packet), ZC_PACKET_BROKEN);
    assert_null(in->frame);
    close(ends[0]);
    close(ends[1]);
    zc_stream_destroy(in);
}

static void half_a_frame_at_the_end_is_an_end(void **state)
{
    const struct zc_frame frame = {.kind = ZC_FRAME_NOTICE, .bytes = 100};
    struct zc_stream *in = zc_stream_create();
    struct zc_packet packet;
    uint8_t head[ZC_WIRE_FRAME];
    int ends[2];

    (void)state;
    connect_pair(ends);
    in->fd = ends[1];
    zc_wire_frame_encode(head, &frame);
    assert_true(zc_net_send_small(ends[0], head, sizeof head));
    close(ends[0]);
    for (int tries = 0; tries < 100 && zc_stream_receive(in, &packet) == ZC_PACKET_NONE; tries++)
        zc_net_wait(ends[1], POLLIN, zc_deadline_in(UINT64_C(100000000)));
    assert_int_equal(zc_stream_receive(in, &packet), ZC_PACKET_END);
    close(ends[1]);
    zc_stream_destroy(in);
    zc_stream_destroy(NULL);
}

static void sending_where_nobody_listens_fails_without_a_signal(void **state)
{
    struct zc_stream *out = zc_stream_create();
    const struct zc_frame frame = {.kind = ZC_FRAME_FAREWELL};
    uint8_t head[ZC_WIRE_FRAME];
    int ends[2], error = 0;

    (void)state;
    connect_pair(ends);
    out->fd = ends[0];
    close(ends[1]);
    zc_wire_frame_encode(head, &frame);
    for (int tries = 0; tries < 100 && error == 0; tries++) {
        error = zc_stream_send(out, head, sizeof head, NULL, 0);
        usleep(1000);
    }
    assert_int_equal(error, EPIPE);
    close(ends[0]);
    zc_stream_destroy(out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames_of_several_threads_come_whole_and_in_order),
        cmocka_unit_test(a_frame_that_claims_too_much_is_broken_and_costs_no_memory),
        cmocka_unit_test(half_a_frame_at_the_end_is_an_end),
        cmocka_unit_test(sending_where_nobody_listens_fails_without_a_signal),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

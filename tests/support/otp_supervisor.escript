#!/usr/bin/env escript
%% Runs scripts (see otp.py) on OTP's own supervisor. Reads one Erlang term per line:
%%   {Strategy, Intensity, [{Name, Restart}], [{Name, crash | normal, [{Name, FailingStarts}]}]}.
%% and prints one journal per line, its entries separated by commas.
-mode(compile).
-export([main/1, init/1, start_child/1, child/2]).

main(_) ->
    logger:set_primary_config(level, none),
    process_flag(trap_exit, true),
    ets:new(journal, [named_table, public, ordered_set]),
    ets:new(failing, [named_table, public]),
    each(io:read("")).

each(eof) -> ok;
each({ok, Script}) ->
    io:format("~s~n", [lists:join(",", run(Script))]),
    each(io:read("")).

run({Strategy, Intensity, Children, Events}) ->
    ets:delete_all_objects(journal),
    ets:delete_all_objects(failing),
    {ok, Sup} = supervisor:start_link(?MODULE, {Strategy, Intensity, Children}),
    Outcome = play(Sup, Events),
    Journal = [Line || {_, Line} <- ets:tab2list(journal)],
    exit(Sup, shutdown),
    receive {'EXIT', Sup, _} -> ok end,
    Journal ++ Outcome.

play(_, []) -> [];
play(Sup, [{Name, How, Failing} | Rest]) ->
    case [Pid || {Id, Pid, _, _} <- supervisor:which_children(Sup), Id =:= Name, is_pid(Pid)] of
        [] -> play(Sup, Rest);
        [Pid] ->
            ets:delete_all_objects(failing),
            ets:insert(failing, Failing),
            Ref = monitor(process, Pid),
            Pid ! How,
            receive {'DOWN', Ref, _, _, _} -> ok end,
            case settled(Sup, Pid) of
                true -> play(Sup, Rest);
                false -> ["gave up"]
            end
    end.

%% Until the supervisor has noticed the end of Gone and has no restart to try again; false if it has given up.
settled(Sup, Gone) ->
    try supervisor:which_children(Sup) of
        Children ->
            case [busy || {_, Pid, _, _} <- Children, Pid =:= restarting orelse Pid =:= Gone] of
                [] -> true;
                _ -> settled(Sup, Gone)
            end
    catch
        exit:_ -> false
    end.

init({Strategy, Intensity, Children}) ->
    Specs = [#{id => Name, start => {?MODULE, start_child, [Name]}, restart => Restart} || {Name, Restart} <- Children],
    {ok, {#{strategy => Strategy, intensity => Intensity, period => 3600}, Specs}}.

start_child(Name) ->
    case ets:lookup(failing, Name) of
        [{_, Left}] when Left > 0 ->
            ets:insert(failing, {Name, Left - 1}),
            note("fail", Name),
            {error, failing};
        _ -> proc_lib:start_link(?MODULE, child, [Name, self()])
    end.

child(Name, Parent) ->
    process_flag(trap_exit, true),
    note("up", Name),
    proc_lib:init_ack({ok, self()}),
    Reason = receive
        crash -> crash;
        normal -> normal;
        {'EXIT', Parent, Asked} -> Asked
    end,
    note("down", Name),
    exit(Reason).

note(What, Name) ->
    ets:insert(journal, {erlang:unique_integer([monotonic]), What ++ " " ++ atom_to_list(Name)}).

# Draws what bench/host/run measured. It sets: picture (the output file), kind (svg or png), machine
# (a line of text), and data_2, data_8: files of columns, for 2 and for 8 ranks
#     bytes  in_place (0 or 1)  zerocta  Open_MPI  floor  floor_in_step    times in microseconds
if (kind eq "svg") {
    set terminal svg size 1100,820 font "DejaVu Sans,13" background "white"
} else {
    set terminal pngcairo size 1650,1230 font "DejaVu Sans,19" background "white"
}
set output picture

set style line 1 lc rgb "#0b61a4" lw 2.5 pt 7 ps 0.9
set style line 2 lc rgb "#d1571b" lw 2.5 pt 5 ps 0.9
set style line 3 lc rgb "#777777" lw 2 dt 2
set style line 4 lc rgb "#2f9e8f" lw 2.5 pt 9 ps 0.9
set style line 7 lc rgb "#777777" lw 2 dt 1
set style line 5 lc rgb "#999999" lw 1
set style line 6 lc rgb "#e4e4e4" lw 1
set grid xtics ytics ls 6
set border 3 lc rgb "#555555"
set tics nomirror out scale 0.6

set logscale xy
set xrange [2**9.5:2**28.5]
set xtics ("1 KiB" 2**10, "16 KiB" 2**14, "256 KiB" 2**18, "4 MiB" 2**22, "64 MiB" 2**26)

set multiplot layout 2,2 margins 0.08,0.985,0.085,0.875 spacing 0.095,0.14 \
    title "Allgather among processes over shared memory: zerocta and Open MPI\n{/*0.75 ".machine."}"
set xlabel "output of one rank" offset 0,0.2

set key bottom right Right samplen 2.5 spacing 1.15
set yrange [0.03:3e6]
set ytics ("0.1 µs" 0.1, "1 µs" 1, "10 µs" 10, "100 µs" 100, "1 ms" 1e3, "10 ms" 1e4, \
           "100 ms" 1e5, "1 s" 1e6)
do for [ranks in "2 8"] {
    data = value("data_".ranks)
    set title ranks." ranks: time of one call, out of place (lower is better)" offset 0,-0.5
    plot data using 1:($2 == 0 ? $4 : NaN) with linespoints ls 2 title "Open MPI", \
         data using 1:($2 == 0 ? $3 : NaN) with linespoints ls 1 title "zerocta", \
         data using 1:($2 == 0 ? $5 : NaN) with lines ls 3 title "plain copies", \
         data using 1:($2 == 0 && $1 >= 2**18 ? $6 : NaN) with lines ls 7 title "plain copies in step"
}

set key top right Right
set yrange [0.25:16]
set ytics ("1/4" 0.25, "1/2" 0.5, "1" 1, "2" 2, "4" 4, "8" 8, "16" 16)
do for [ranks in "2 8"] {
    data = value("data_".ranks)
    set title ranks." ranks: Open MPI / zerocta (above 1 zerocta is faster)" offset 0,-0.5
    plot 1 with lines ls 5 notitle, \
         data using 1:($2 == 0 ? $4 / $3 : NaN) with linespoints ls 1 title "out of place", \
         data using 1:($2 == 1 ? $4 / $3 : NaN) with linespoints ls 4 title "in place"
}
unset multiplot

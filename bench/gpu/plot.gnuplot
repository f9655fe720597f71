# Draws what scripts/gpu measured. bench/gpu/plot sets: picture (the output file), kind (svg or png),
# data (a folder with files of columns
#     bytes  zerocta  NCCL  NCCL_windows  NCCL_ZERO  bare_pushes    times in microseconds)
if (kind eq "svg") {
    set terminal svg size 1100,820 font "DejaVu Sans,13" background "white"
} else {
    set terminal pngcairo size 1650,1230 font "DejaVu Sans,19" background "white"
}
set output picture

set style line 1 lc rgb "#0b61a4" lw 2.5 pt 7 ps 0.9
set style line 2 lc rgb "#d1571b" lw 2.5 pt 5 ps 0.9
set style line 3 lc rgb "#c9a227" lw 2 pt 13 ps 0.9
set style line 4 lc rgb "#2f9e8f" lw 2 pt 9 ps 0.9
set style line 5 lc rgb "#777777" lw 2 dt 2
set style line 6 lc rgb "#e4e4e4" lw 1
set style line 7 lc rgb "#999999" lw 1
set grid xtics ytics ls 6
set border 3 lc rgb "#555555"
set tics nomirror out scale 0.6

set logscale xy
set xrange [2**9.5:2**30.5]
set xtics ("1 KiB" 2**10, "16 KiB" 2**14, "256 KiB" 2**18, "4 MiB" 2**22, "64 MiB" 2**26, "1 GiB" 2**30)

set multiplot layout 2,2 margins 0.08,0.965,0.085,0.9 spacing 0.095,0.14 \
    title "Allgather on two NVLinked H200: zerocta and NCCL 2.28.3"
set xlabel "output of one rank" offset 0,0.2

set key top left Left reverse samplen 2.5 spacing 1.15
set yrange [1:5000]
set ytics ("1 µs" 1, "10 µs" 10, "100 µs" 100, "1 ms" 1e3)
do for [place in "in-place out-of-place"] {
    set title (place eq "in-place" ? "in place" : "out of place").": time of one call (lower is better)" \
        offset 0,-0.5
    plot data.place using 1:3 with linespoints ls 3 title "NCCL, kernels", \
         data.place using 1:4 with linespoints ls 4 title "NCCL, kernels, windows", \
         data.place using 1:5 with linespoints ls 2 title "NCCL, copy engines", \
         data.place using 1:2 with linespoints ls 1 title "zerocta", \
         data.place using 1:($6 > 0 ? $6 : NaN) with lines ls 5 \
            title (place eq "in-place" ? "bare pushes" : "")
}

set key bottom right Right noreverse
set yrange [0.35:2]
set ytics ("0.5" 0.5, "0.7" 0.7, "1" 1, "1.4" 1.4, "2" 2)
do for [place in "in-place out-of-place"] {
    set title (place eq "in-place" ? "in place" : "out of place"). \
        ": NCCL's time / zerocta's (higher is better)" offset 0,-0.5
    plot 1 with lines ls 7 notitle, \
         data.place using 1:($5 / $2) with linespoints ls 2 title "copy engines", \
         data.place."-graph" using 1:($5 / $2) with linespoints ls 1 title "copy engines, graphs", \
         data.place using 1:($4 / $2) with linespoints ls 4 title "kernels, windows"
}
unset multiplot
